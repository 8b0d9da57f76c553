//! Replies.

use bytes::Bytes;

use crate::Error;

/// What a server answered.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// Nothing, where there could be something.
    Nil,
    /// A number.
    Integer(i64),
    /// A fraction.
    Double(f64),
    /// Yes or no.
    Boolean(bool),
    /// Any bytes.
    Bytes(Bytes),
    /// A short text of the server's, such as `OK`.
    Text(String),
    /// Several of them.
    Array(Vec<Self>),
    /// Pairs, in the server's order.
    Map(Vec<(Self, Self)>),
    /// An error in the place of one of several answers: its code, and the rest.
    Error(String, String),
}

impl Value {
    /// The bytes, or nothing.
    ///
    /// # Errors
    /// It is something else.
    pub fn into_bytes(self) -> Result<Option<Bytes>, Error> {
        match self {
            Self::Nil => Ok(None),
            Self::Bytes(bytes) => Ok(Some(bytes)),
            Self::Text(text) => Ok(Some(text.into())),
            other => Err(other.unexpected("bytes")),
        }
    }

    /// The number.
    ///
    /// # Errors
    /// It is something else.
    pub fn into_integer(self) -> Result<i64, Error> {
        match self {
            Self::Integer(number) => Ok(number),
            other => Err(other.unexpected("a number")),
        }
    }

    pub(crate) fn unexpected(&self, wanted: &str) -> Error {
        let mut shown = format!("{self:?}");
        if let Some((end, _)) = shown.char_indices().nth(SHOWN_CHARS_MAX) {
            shown.truncate(end);
            shown.push('…');
        }
        Error::BadReply(format!("{shown} instead of {wanted}"))
    }

    /// From the protocol's own types. Bytes are not copied.
    pub(crate) fn of(value: redis::Value) -> Self {
        let all = |values: Vec<redis::Value>| values.into_iter().map(Self::of).collect();
        let pairs = |pairs: Vec<(redis::Value, redis::Value)>| {
            pairs.into_iter().map(|(key, value)| (Self::of(key), Self::of(value))).collect()
        };
        match value {
            redis::Value::Nil => Self::Nil,
            redis::Value::Int(number) => Self::Integer(number),
            redis::Value::BulkString(bytes) => Self::Bytes(bytes.into()),
            redis::Value::Array(values) | redis::Value::Set(values) => Self::Array(all(values)),
            redis::Value::Push { data, .. } => Self::Array(all(data)),
            redis::Value::SimpleString(text) | redis::Value::VerbatimString { text, .. } => {
                Self::Text(text)
            }
            redis::Value::Okay => Self::Text("OK".to_owned()),
            redis::Value::Map(map) => Self::Map(pairs(map)),
            redis::Value::Attribute { data, .. } => Self::of(*data),
            redis::Value::Double(number) => Self::Double(number),
            redis::Value::Boolean(boolean) => Self::Boolean(boolean),
            redis::Value::BigNumber(digits) => Self::Bytes(digits.into()),
            redis::Value::ServerError(error) => {
                let text = error.details().unwrap_or_default().to_owned();
                Self::Error(error.code().to_owned(), text)
            }
            other => Self::Text(format!("{other:?}")),
        }
    }
}

/// How much of a reply an error repeats.
const SHOWN_CHARS_MAX: usize = 100;
