//! What answers hold of the memory of queries: charged from the evaluation until the last byte is sent.

/// The account of an answer.
pub trait AnswerMemory: Send {
    /// Charges `bytes` more; the error is what the client reads.
    fn grow(&mut self, bytes: usize) -> Result<(), String>;
    /// Sets the charge to `bytes`, which is at most what is charged; more is not given back.
    fn settle(&mut self, bytes: usize);
}

/// An answer's share, given back on drop; the default holds nothing.
#[derive(Default)]
pub struct Held(Option<Box<dyn AnswerMemory>>);

impl Held {
    /// A share under an account.
    pub fn new(memory: impl AnswerMemory + 'static) -> Self {
        Self(Some(Box::new(memory)))
    }

    /// As [`AnswerMemory::grow`].
    pub fn grow(&mut self, bytes: usize) -> Result<(), String> {
        self.0.as_mut().map_or(Ok(()), |memory| memory.grow(bytes))
    }

    /// As [`AnswerMemory::settle`].
    pub fn settle(&mut self, bytes: usize) {
        if let Some(memory) = &mut self.0 {
            memory.settle(bytes);
        }
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Held(..)" } else { "Held" })
    }
}
