//! What each rule finds and what it leaves, and that no text holds it up.

use serde_json::json;

use super::*;

/// Checks `rule` on texts in which what is to be found stands between `<` and `>`.
fn finds(rule: &Redaction, marker: &str, texts: &[&str]) {
    for marked in texts {
        let text = marked.replace(['<', '>'], "");
        let mut expected = String::new();
        for (index, part) in marked.split(['<', '>']).enumerate() {
            expected.push_str(if index % 2 == 0 { part } else { marker });
        }
        assert_eq!(rule.apply(&text), expected, "{text}");
        assert_eq!(rule.apply(&expected), expected, "again: {expected}");
    }
}

/// What is no phone and no card, though it has many digits.
const NUMBERS: &[&str] = &[
    "2026-11-26",
    "26.11.2026 14:50",
    "01/02/2024 1030",
    "01/02/24 1030",
    "01-02-2024 100000",
    "2026-11-26T14:50:36.123456+01:00",
    "20261126145036",
    "1732632000",
    "1732632000000",
    "1732632000000000",
    "1732632000000000000",
    "00000000-0000-0000-0000-000000000000",
    "12345678-1234-1234-1234-123456789012",
    "47223179-9330-4259-b66c-f2db26efb20c",
    "0192f0c1-5551-7123-8555-012345678901",
    "192.168.100.200",
    "10.0.0.1:8080",
    "2001:0db8:85a3:0000:0000:8a2e:0370:7334",
    "order 4500123456",
    "order #555-123-4567",
    "order 305-1234567-1234567",
    "invoice 2026/0151/234567",
    "ISBN 978-0-306-40615-7",
    "DE89370400440532013000",
    "$1,234,567.89",
    "1.234.567,89 €",
    "+12.500.000 € and +12 500 000 and +1,234,567",
    "+12345.67 points",
    "52.520008, 13.404954",
    "+52.520008, +13.404954",
    "@@ -123,45 +1234567,8 @@",
    "v1.20.300.4000",
    "0.0151234567891",
    "sha 0151234567890abcdef",
    "{\"id\":4500123456,\"at\":1732632000000,\"p\":0.4111111111111111}",
    "4111111111111112",
    // These pass the check of a card.
    "1732632123458",
    "1732632123456785",
    "1732632123456789018",
    "7026331123456786",
    "4111-1111-1111-1111-11",
    "411111-1111-111111",
    "model gpt-4o-2024-08-06, 128000 tokens, 12 345 678 calls",
];

#[test]
fn phones_are_found_as_people_write_them() {
    let texts = [
        "<+49 151 23456789>",
        "call <+4915123456789>!",
        "<+1 (555) 123-4567>",
        "<+1-555-123-4567>, <+44 20 7946 0958>",
        "<+34 612 345 678>",
        "<+49 (0)151 2345678>",
        "tel:<+49-30-1234567>",
        "<0049 151 2345678>",
        "<(555) 123-4567> or <555-123-4567>",
        "<555-123-4567> <555-987-6543>",
        "<555.123.4567>.",
        "<1-800-555-0199>",
        "<555-123-4567>x89",
        "<0151 23456789>, <(030) 1234567>, <01 42 68 53 00>",
        "(<030 1234567>)",
        "<089/1234567>",
        "{\"phone\":\"<+49 151 23456789>\"}",
        r"mine:\n<555-123-4567>\n",
        "c1 <(555) 123-2955> and room 5 <555-123-4567>",
        "a;<555-123-4567>,42",
        "<+49 151 23456789> 2026-11-26",
    ];
    finds(&Redaction::new().phones(), "[phone]", &texts);
}

#[test]
fn cards_are_found_in_one_piece_and_in_groups() {
    let texts = [
        "<4111111111111111>",
        "<4111 1111 1111 1111> 12/28 123",
        "pay with <5555-5555-5555-4444>.",
        "<378282246310005> and <3782 822463 10005>",
        "<6011111111111117>,<2223003122003222>,123",
        "<30569309025904>, <3056 930902 5904>",
        "<3530111333300000>",
        "<6200000000000005>",
        "{\"card\":<4111111111111111>}",
        r#"{\"card\":\"<4111111111111111>\"}"#,
        "2 <4111 1111 1111 1111>",
        "/cards/<4111111111111111>/",
    ];
    finds(&Redaction::new().cards(), "[card]", &texts);
}

#[test]
fn other_numbers_are_neither_phones_nor_cards() {
    for text in NUMBERS {
        assert_eq!(Redaction::new().phones().cards().apply(text), *text);
    }
}

#[test]
fn emails_are_found_in_every_script_and_in_urls() {
    let texts = [
        "<ann@example.com>",
        "Ann <<ann.b+news@mail.example.co.uk>>".trim_matches(' '),
        "mailto:<o'brien@example.org>?subject=x",
        "<müller@exämple.de>, <用户@例子.中国>",
        "https://example.com/?to=<ann%40example.com>&a=1",
        r#"{\"to\":\"<ann@example.com>\"}"#,
        r"\n<ann@example.com>\n",
        r"\u003c<ann@example.com>\u003e",
        "<ann@xn--exmple-cua.xn--p1ai>",
        "write to <ann@example.com>.",
    ];
    for text in texts {
        // `<<…>>` are brackets of the text itself.
        let text = text.replace("<<", "«<").replace(">>", ">»");
        finds(&Redaction::new().emails(), "[email]", &[&text]);
    }
    for text in
        ["root@localhost", "@mention", "icon@2x.png", "lodash@4.17.21", "a @ b.com", "5 @ 3.50"]
    {
        assert_eq!(Redaction::new().emails().apply(text), text);
    }
}

#[test]
fn keys_are_found_by_their_form() {
    let long = "a1B2c3D4e5".repeat(4);
    let forms = [
        format!("<sk-proj-{long}>"),
        format!("OPENAI_API_KEY=<sk-{long}>"),
        format!("<sk_live_{long}> <ghp_{long}> <github_pat_{long}> <glpat-{long}>"),
        format!(
            "<xoxb-{long}>, <AIza{long}>, <gsk_{long}>, <hf_{long}>, <xai-{long}>, <npm_{long}>"
        ),
        "<AKIAIOSFODNN7EXAMPLE>".to_owned(),
        format!("Authorization: Bearer <{long}>"),
        format!("\"bearer <{long}==>\""),
        "<eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P>".to_owned(),
        "<eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0>".to_owned(),
        format!(r"key:\n<sk-{long}>\n"),
        format!(r"key\u003d<sk-{long}>\u0026b\\u003D<hf_{long}>"),
        format!("https://a.test/?key%3D<sk-{long}>%26b=%22<ghp_{long}>%22"),
        format!("a\n<-----BEGIN PRIVATE KEY-----\n{long}\n{long}\n-----END PRIVATE KEY----->\nb"),
        format!(r"<-----BEGIN RSA PRIVATE KEY-----\n{long}\n-----END RSA PRIVATE KEY----->\n"),
        format!(
            "<-----BEGIN EC PRIVATE KEY-----\nDEK-Info: AES\n\n{long}, and the rest of the text>"
        ),
    ];
    let keys = Redaction::new().keys();
    for form in &forms {
        finds(&keys, "[key]", &[form]);
    }
    for text in [
        "task-management-and-more-of-it",
        "sk-learn-is-a-library-of-python",
        "Bearer authentication is used",
        "a bearer of good news",
        "if text.contains(\"-----BEGIN PRIVATE KEY-----\") { refuse() } else { go on }",
        "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A\n-----END PUBLIC KEY-----",
        "AKIAshort, ghp_short, eyJ.a.b",
    ] {
        assert_eq!(keys.apply(text), text);
    }
}

#[test]
fn rules_run_in_one_order_and_functions_after_them() {
    let long = "a1B2c3D4e5".repeat(4);
    let text = format!("sk-+49 151 23456789 ann@example.com Bearer {long}/+4915123456789");
    let function = |text: &str| text.contains("[email]").then(|| text.replace("[email]", "<1>"));
    let one = Redaction::new().with(function).phones().emails().keys().emails();
    let other = Redaction::new().keys().and(Redaction::new().emails().phones().with(function));
    assert_eq!(one.apply(&text), "sk-[phone] <1> Bearer [key]");
    assert_eq!(one.apply(&text), other.apply(&text));
    assert!(Redaction::new().is_empty());
    assert!(!Redaction::new().with(function).is_empty());
}

#[test]
fn json_is_redacted_in_strings_numbers_and_keys() {
    let mut fields = json!({
        "card": 4_111_111_111_111_111_u64,
        "n": [1, 0.5, {"deep": ["ann@example.com", null, true]}],
        "ann@example.com": 1,
        "bob@example.com": {"[email]": 2, "cat@example.com": 3},
        "[email] 2": "kept",
    });
    let redaction = Redaction::new().emails().cards();
    let fields = fields.as_object_mut().unwrap();
    redact_map(fields, &mut |text| *text = redaction.apply(text).into_owned());
    let mut values: Vec<String> = fields.values().map(ToString::to_string).collect();
    values.sort_unstable();
    assert_eq!(fields["card"], "[card]");
    assert_eq!(fields["n"], json!([1, 0.5, {"deep": ["[email]", null, true]}]));
    let under = |key: &str| key.starts_with("[email]");
    assert_eq!(fields.keys().filter(|key| under(key)).count(), 3, "{fields:?}");
    assert_eq!(fields.len(), 5);
    assert!(values.contains(&"\"kept\"".to_owned()), "{values:?}");
    assert!(!json!(fields).to_string().contains("example.com"));
}

#[test]
fn a_long_hostile_text_comes_to_an_end() {
    let redaction = Redaction::new().emails().phones().cards().keys();
    let pieces = [
        "a@",
        "a@b.",
        "a.",
        "4111 ",
        "0151 ",
        "+",
        "+1 ",
        "(",
        "1",
        "sk-",
        "eyJ",
        "eyJaaaaaaaa.",
        "\\n",
        "\\u003d",
        "%3Dsk-",
        "Bearer ",
        "-----BEGIN PRIVATE KEY-----",
        "%40",
        "é",
        "0",
        "00 ",
        "555-",
    ];
    // Long enough that whoever took a square of its time would not be seen again.
    for piece in pieces {
        let text = piece.repeat(400_000 / piece.len());
        assert!(redaction.apply(&text).len() <= text.len(), "{piece}");
    }
}
