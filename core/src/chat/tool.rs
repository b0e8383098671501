//! Tools that a model may call, and what it is told of them.
//! Invariant: every call of a tool has a result to tell the model, whatever happens in it.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use async_trait::async_trait;
use futures::FutureExt;
use serde_json::{Map, Value};

use crate::error::BoxError;
use crate::llm::{ToolCall, ToolSpec};

/// Something that a model may have done.
///
/// What [`Tool::call`] gives is told the model as it is. If it fails, the model is told so with the
/// sentence of the error: it is sent to the provider, so it must hold no secret.
///
/// # Example: a tool with its own state
/// ```
/// use async_trait::async_trait;
/// use prompt_engine_core::{Tool, ToolSpec, error::BoxError};
/// use serde_json::{Value, json};
///
/// struct Stock(u32);
///
/// #[async_trait]
/// impl Tool for Stock {
///     fn spec(&self) -> ToolSpec {
///         ToolSpec::new("stock", "How many pieces of an article there are").with_parameters(json!({
///             "type": "object",
///             "properties": {"article": {"type": "string"}},
///             "required": ["article"],
///         }))
///     }
///
///     async fn call(&self, arguments: Value) -> Result<String, BoxError> {
///         let article = arguments["article"].as_str().ok_or("name the article")?;
///         Ok(format!("{} pieces of {article}", self.0))
///     }
/// }
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let answer = Stock(3).call(json!({"article": "lamp"})).await.unwrap();
/// assert_eq!(answer, "3 pieces of lamp");
/// assert_eq!(Stock(3).call(json!({})).await.unwrap_err().to_string(), "name the article");
/// # });
/// ```
#[async_trait]
pub trait Tool: Send + Sync + 'static {
    /// What the model is told of it. Asked once, when a chat gets the tool.
    fn spec(&self) -> ToolSpec;

    /// Does it. `arguments` are as the model wrote them, any JSON; an object without fields where
    /// it wrote none.
    async fn call(&self, arguments: Value) -> Result<String, BoxError>;
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<T: Tool + ?Sized> Tool for Arc<T> {
    fn spec(&self) -> ToolSpec {
        (**self).spec()
    }

    async fn call(&self, arguments: Value) -> Result<String, BoxError> {
        (**self).call(arguments).await
    }
}

/// A tool of a closure.
///
/// # Example: a tool that adds
/// ```
/// use prompt_engine_core::{Tool, ToolSpec, tool_fn};
/// use serde_json::json;
///
/// let add = tool_fn(ToolSpec::new("add", "Adds a and b"), async |arguments| {
///     let sum = arguments["a"].as_i64().zip(arguments["b"].as_i64()).map(|(a, b)| a + b);
///     Ok(sum.ok_or("a and b must be whole numbers")?.to_string())
/// });
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// assert_eq!(add.call(json!({"a": 2, "b": 3})).await.unwrap(), "5");
/// # });
/// ```
pub fn tool_fn<F, R>(spec: ToolSpec, call: F) -> impl Tool
where
    F: Fn(Value) -> R + Send + Sync + 'static,
    R: Future<Output = Result<String, BoxError>> + Send + 'static,
{
    ToolFn { spec, call }
}

struct ToolFn<F> {
    spec: ToolSpec,
    call: F,
}

#[async_trait]
impl<F, R> Tool for ToolFn<F>
where
    F: Fn(Value) -> R + Send + Sync + 'static,
    R: Future<Output = Result<String, BoxError>> + Send + 'static,
{
    fn spec(&self) -> ToolSpec {
        self.spec.clone()
    }

    async fn call(&self, arguments: Value) -> Result<String, BoxError> {
        (self.call)(arguments).await
    }
}

/// A tool of a chat, and what the model is told of it.
#[derive(Clone)]
pub(super) struct Offered {
    pub(super) spec: ToolSpec,
    pub(super) tool: Arc<dyn Tool>,
}

/// Calls the tool that `call` names. Where that cannot be done, the result says why.
pub(super) async fn result_of(call: &ToolCall, tools: &[Offered]) -> String {
    let name = &call.name;
    let Some(offered) = tools.iter().find(|offered| offered.spec.name == *name) else {
        let known: Vec<_> = tools.iter().map(|offered| offered.spec.name.as_str()).collect();
        return match known.as_slice() {
            [] => format!("There is no tool `{name}`: there are no tools."),
            known => format!("There is no tool `{name}`; there is {}.", known.join(", ")),
        };
    };
    let arguments = match call.arguments.trim() {
        "" => Value::Object(Map::new()),
        text => match serde_json::from_str(text) {
            Ok(arguments) => arguments,
            Err(error) => return format!("The arguments of `{name}` are no JSON: {error}."),
        },
    };
    // A tool that panicked is not called with what it left half-done by us, but by its next call.
    let done = AssertUnwindSafe(async { offered.tool.call(arguments).await }).catch_unwind().await;
    match done {
        Ok(Ok(result)) => result,
        Ok(Err(error)) => format!("The tool `{name}` failed: {error}"),
        Err(_) => {
            tracing::error!(tool = name, "a tool panicked");
            format!("The tool `{name}` failed.")
        }
    }
}
