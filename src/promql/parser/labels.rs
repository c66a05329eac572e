//! Metrics: a name and labels with their values.

use super::{Parsed, Parser, range_of};
use crate::model::go;
use crate::model::labels::{Labels, LabelsBuilder, METRIC_NAME};
use crate::promql::lexer::{Kind, Token};

const LABEL_SET: &str = "label set";
const STRING: &str = "string";

impl Parser<'_> {
    /// A metric name and labels in braces; both are optional.
    pub(super) fn metric(&mut self) -> Parsed<Labels> {
        let mut name = None;
        if self.peek().is_metric_identifier() {
            name = Some(self.advance());
        }
        let mut labels = LabelsBuilder::new();
        if self.peek() == Kind::LeftBrace {
            self.advance();
            self.braced_list(LABEL_SET, |parser| parser.label_set_item(&mut labels))?;
        }
        if let Some(name) = name {
            labels.set(METRIC_NAME, self.text(name));
        }
        Ok(labels.build())
    }

    /// `name="value"`, or a quoted metric name alone; the name is next.
    fn label_set_item(&mut self, labels: &mut LabelsBuilder) -> Parsed<()> {
        let token = self.advance();
        let name = if token.kind == Kind::Text {
            let name = self.string_text(token);
            if self.peek() != Kind::Equal {
                self.set_label(labels, token, METRIC_NAME, &name);
                return Ok(());
            }
            name
        } else {
            self.text(token).to_owned()
        };
        let equal = self.expect(Kind::Equal);
        if self.recover(equal, LABEL_SET, "\"=\"")?.is_none() {
            return Ok(());
        }
        let value = self.expect(Kind::Text);
        if let Some(value) = self.recover(value, LABEL_SET, STRING)? {
            let value = self.string_text(value);
            self.set_label(labels, token, &name, &value);
        }
        Ok(())
    }

    /// Sets a label. Prometheus reads repeated names and refuses them when the series is stored; here they end earlier.
    fn set_label(&mut self, labels: &mut LabelsBuilder, token: Token, name: &str, value: &str) {
        if labels.contains(name) {
            self.types.error(range_of(token), format!("label name {} is not unique", go::quote(name)));
        }
        labels.set(name, value);
    }
}
