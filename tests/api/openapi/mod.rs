//! Tests of the OpenAPI document and the documentation page.

pub(crate) mod browser;
mod document;
mod example_values;
mod examples;
