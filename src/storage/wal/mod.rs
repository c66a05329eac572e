pub mod fragment;
pub mod reader;
pub mod record;
