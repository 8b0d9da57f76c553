//! Copies as they are handed out: shared, never copied.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use super::{Kept, Valid};
use crate::level::Moment;

/// A copy as a [near level](super::NearLevel) hands it out.
///
/// Several threads that read one copy count its references in one place, which is most of what reading it costs
/// them. A level that minds gives each thread a [`Handle`] of its own; the others hand out what they have, by
/// [`Held::from`].
pub struct Held<V>(By<V>);

enum By<V> {
    Copy(Arc<Kept<V>>),
    Handle(Arc<Handle<V>>),
}

/// What one thread counts its references to a copy in.
#[derive(Debug)]
pub struct Handle<V>(Arc<Kept<V>>);

impl<V> Handle<V> {
    /// A handle of this copy.
    #[must_use]
    pub fn of(copy: Arc<Kept<V>>) -> Self {
        Self(copy)
    }
}

impl<V> Held<V> {
    /// The copy itself, the same for all threads.
    #[must_use]
    pub fn copy(&self) -> &Arc<Kept<V>> {
        match &self.0 {
            By::Copy(copy) => copy,
            By::Handle(handle) => &handle.0,
        }
    }
}

impl<V> From<Arc<Kept<V>>> for Held<V> {
    fn from(copy: Arc<Kept<V>>) -> Self {
        Self(By::Copy(copy))
    }
}

impl<V> From<Arc<Handle<V>>> for Held<V> {
    fn from(handle: Arc<Handle<V>>) -> Self {
        Self(By::Handle(handle))
    }
}

impl<V> Deref for Held<V> {
    type Target = Kept<V>;

    fn deref(&self) -> &Kept<V> {
        self.copy()
    }
}

impl<V> Clone for Held<V> {
    fn clone(&self) -> Self {
        match &self.0 {
            By::Copy(copy) => Self(By::Copy(Arc::clone(copy))),
            By::Handle(handle) => Self(By::Handle(Arc::clone(handle))),
        }
    }
}

impl<V: fmt::Debug> fmt::Debug for Held<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Held").field(&**self).finish()
    }
}

/// A value from a cache, shared with all who read it at the time. To clone it copies nothing of the value.
///
/// ```
/// use scatterhoard_client::level::Cached;
///
/// let name = Cached::from("Ada".to_owned());
/// assert_eq!(name.len(), 3);
/// assert_eq!(*name, "Ada");
/// ```
pub struct Cached<V>(Held<V>);

impl<V> Cached<V> {
    /// The value that a copy has; `None` if it is that there is none.
    #[must_use]
    pub fn of(copy: Held<V>) -> Option<Self> {
        copy.value.is_some().then(|| Self(copy))
    }

    /// The value itself, if nobody else has it: no near level, and no other reader.
    ///
    /// # Errors
    /// This, unchanged, if others have it.
    pub fn into_inner(self) -> Result<V, Self> {
        match self.0.0 {
            By::Copy(copy) => match Arc::try_unwrap(copy) {
                Ok(copy) => Ok(copy.value.expect("a value is checked for when this is made")),
                Err(copy) => Err(Self(Held::from(copy))),
            },
            By::Handle(handle) => Err(Self(Held::from(handle))),
        }
    }
}

impl<V> From<V> for Cached<V> {
    fn from(value: V) -> Self {
        let never = Moment::default();
        let copy = Kept { value: Some(value), weight: 0, soft: never, valid: Valid::Until(never) };
        Self(Held::from(Arc::new(copy)))
    }
}

impl<V> Deref for Cached<V> {
    type Target = V;

    fn deref(&self) -> &V {
        self.0.value.as_ref().expect("a value is checked for when this is made")
    }
}

impl<V> AsRef<V> for Cached<V> {
    fn as_ref(&self) -> &V {
        self
    }
}

impl<V> Clone for Cached<V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<V: fmt::Debug> fmt::Debug for Cached<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        V::fmt(self, f)
    }
}

impl<V: fmt::Display> fmt::Display for Cached<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        V::fmt(self, f)
    }
}

impl<V: PartialEq> PartialEq for Cached<V> {
    fn eq(&self, other: &Self) -> bool {
        V::eq(self, other)
    }
}

impl<V: Eq> Eq for Cached<V> {}
