"""Prints the installed package genai-prices as JSON, in the shape of its published exports, with
the rules by which it knows and replaces providers."""

import importlib.metadata
import json

from genai_prices import types
from genai_prices.data import providers


def rule(clause):
    if clause is None:
        return None
    name = {
        types.ClauseStartsWith: "starts_with",
        types.ClauseEndsWith: "ends_with",
        types.ClauseContains: "contains",
        types.ClauseRegex: "regex",
        types.ClauseEquals: "equals",
        types.ClauseOr: "or",
        types.ClauseAnd: "and",
    }[type(clause)]
    if name in ("or", "and"):
        return {name: [rule(part) for part in getattr(clause, name + "_")]}
    return {name: getattr(clause, name)}


def price(value):
    if isinstance(value, types.TieredPrices):
        tiers = [{"start": tier.start, "price": str(tier.price)} for tier in value.tiers]
        return {"base": str(value.base), "tiers": tiers}
    return str(value)


def prices(model_price):
    return {key: price(value) for key, value in vars(model_price).items() if value is not None}


def constraint(of):
    if of is None:
        return None
    return {name: value.isoformat() for name, value in vars(of).items()}


def rows(model):
    if isinstance(model.prices, types.ModelPrice):
        return [{"constraint": None, "prices": prices(model.prices)}]
    return [{"constraint": constraint(row.constraint), "prices": prices(row.prices)} for row in model.prices]


def variant(of):
    return {"when": of.when, "prices": prices(of.prices), "constraint": constraint(of.constraint)}


def model(of):
    return {
        "id": of.id,
        "name": of.name,
        "match": rule(of.match),
        "context_window": of.context_window,
        "deprecated": of.deprecated,
        "prices": rows(of),
        "price_variants": [variant(one) for one in of.price_variants or ()],
    }


def provider(of):
    return {
        "id": of.id,
        "name": of.name,
        "provider_match": rule(of.provider_match),
        "fallback_model_providers": of.fallback_model_providers or [],
        "models": [model(one) for one in of.models],
    }


version = importlib.metadata.version("genai-prices")
print(json.dumps({"source": f"PyPI genai-prices {version}", "licence": "MIT", "providers": [provider(one) for one in providers]}))
