//! What the headers of a request say: how the body is packed, and which message it holds.

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// One block of snappy, as the protocol asks for.
    Snappy,
    /// One zstd frame, as vmagent sends it.
    Zstd,
}

impl Packing {
    /// The compression that the header names. The error is the text of a 415.
    pub fn of(content_encoding: Option<&str>) -> Result<Self, String> {
        match content_encoding.unwrap_or("") {
            "" | "snappy" => Ok(Self::Snappy),
            "zstd" => Ok(Self::Zstd),
            other => {
                let rest = "encoding (compression) is not accepted by this server; only snappy is acceptable";
                Err(format!("{other} {rest}"))
            }
        }
    }
}

/// Which message a body holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// `prometheus.WriteRequest`, of remote write 1.0.
    V1,
    /// `io.prometheus.write.v2.Request`, of remote write 2.0.
    V2,
}

impl Message {
    /// The full name of the message.
    pub fn name(self) -> &'static str {
        match self {
            Self::V1 => "prometheus.WriteRequest",
            Self::V2 => "io.prometheus.write.v2.Request",
        }
    }

    fn named(name: &str) -> Option<Self> {
        [Self::V1, Self::V2].into_iter().find(|message| message.name() == name)
    }
}

/// Messages that are accepted, in the order of the flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted(Vec<Message>);

impl Accepted {
    /// Those of `--web.remote-write-receiver.accepted-protobuf-messages`; names that do not exist are left out.
    pub fn named<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        Self(names.into_iter().filter_map(Message::named).collect())
    }
}

/// How a request is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Its compression.
    pub packing: Packing,
    /// Its message.
    pub message: Message,
}

impl Format {
    /// The format of a body that is packed like this. The error is the text of a 415.
    pub fn of(packing: Packing, content_type: Option<&str>, accepted: &Accepted) -> Result<Self, String> {
        let message = message(content_type.filter(|written| !written.is_empty()).unwrap_or(MEDIA_TYPE))?;
        if !accepted.0.contains(&message) {
            let names: Vec<&str> = accepted.0.iter().map(|message| message.name()).collect();
            let (name, names) = (message.name(), names.join(", "));
            return Err(format!("{name} protobuf message is not accepted by this server; only accepts {names}"));
        }
        Ok(Self { packing, message })
    }
}

const MEDIA_TYPE: &str = "application/x-protobuf";

fn message(content_type: &str) -> Result<Message, String> {
    let content_type = content_type.trim();
    let mut parts = content_type.split(';');
    if parts.next() != Some(MEDIA_TYPE) {
        return Err(format!("expected {MEDIA_TYPE} as the first (media) part, got {content_type} content-type"));
    }
    for part in parts {
        let pair: Vec<&str> = part.split('=').collect();
        let [name, value] = pair[..] else {
            let rule = "as per https://www.rfc-editor.org/rfc/rfc9110#parameter expected parameters to be key-values";
            return Err(format!("{rule}, got {part} in {content_type} content-type"));
        };
        if name == "proto" {
            return Message::named(value).ok_or_else(|| {
                let known = [Message::V1, Message::V2].map(Message::name).join(", ");
                let unknown = "unknown type for remote write protobuf message";
                format!("got {content_type} content type; {unknown} {value}, supported: {known}")
            });
        }
    }
    Ok(Message::V1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(encoding: Option<&str>, content_type: Option<&str>) -> Result<Format, String> {
        Format::of(Packing::of(encoding)?, content_type, &Accepted(vec![Message::V1, Message::V2]))
    }

    #[test]
    fn headers_name_the_format() {
        let (v1, v2) = (Message::V1, Message::V2);
        let format = |packing, message| Ok(Format { packing, message });
        assert_eq!(of(None, None), format(Packing::Snappy, v1));
        assert_eq!(of(Some("snappy"), Some("")), format(Packing::Snappy, v1));
        assert_eq!(of(Some("zstd"), Some("application/x-protobuf")), format(Packing::Zstd, v1));
        let written = "application/x-protobuf;proto=prometheus.WriteRequest";
        assert_eq!(of(None, Some(written)), format(Packing::Snappy, v1));
        let written = " application/x-protobuf;a=b;proto=io.prometheus.write.v2.Request ";
        assert_eq!(of(Some("snappy"), Some(written)), format(Packing::Snappy, v2));
    }

    #[test]
    fn refusals_have_the_words_of_prometheus() {
        let gzip = "gzip encoding (compression) is not accepted by this server; only snappy is acceptable";
        assert_eq!(of(Some("gzip"), None), Err(gzip.to_owned()));
        let json = "expected application/x-protobuf as the first (media) part, got application/json content-type";
        assert_eq!(of(None, Some("application/json")), Err(json.to_owned()));
        let odd = of(None, Some("application/x-protobuf;x")).unwrap_err();
        assert!(odd.ends_with("expected parameters to be key-values, got x in application/x-protobuf;x content-type"));
        let unknown = of(None, Some("application/x-protobuf;proto=x")).unwrap_err();
        let text = "got application/x-protobuf;proto=x content type; unknown type for remote write protobuf message x, \
                    supported: prometheus.WriteRequest, io.prometheus.write.v2.Request";
        assert_eq!(unknown, text);
        let only = Accepted::named(["io.prometheus.write.v2.Request", "x"]);
        let text = "prometheus.WriteRequest protobuf message is not accepted by this server; only accepts \
                    io.prometheus.write.v2.Request";
        assert_eq!(Format::of(Packing::Snappy, None, &only), Err(text.to_owned()));
    }
}
