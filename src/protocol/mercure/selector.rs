//! Topic selectors: which topics a subscription or a token means.

use super::Stored;
use super::template::Template;
use crate::hub::{Interest, TopicPattern};
use std::sync::Arc;

/// A set of selectors. Each is `*`, a topic, or a URI template.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selectors {
    all: bool,
    /// Sorted. A template is here too: it selects the topic of that very text.
    exact: Box<[Box<str>]>,
    templates: Box<[Arc<Template>]>,
    /// The bytes of their texts.
    template_bytes: usize,
}

/// Why texts are no selectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// More than [`super::MAX_TOPICS`].
    #[error("there are more than {} topics", super::MAX_TOPICS)]
    TooMany,
    /// One is longer than [`super::MAX_TOPIC`].
    #[error("a topic is longer than {} bytes", super::MAX_TOPIC)]
    TooLong,
}

impl Selectors {
    /// The selectors in `texts`.
    pub fn new<T: AsRef<str>>(texts: &[T]) -> Result<Self, SelectorError> {
        if texts.len() > super::MAX_TOPICS {
            return Err(SelectorError::TooMany);
        }
        let texts = texts.iter().map(AsRef::as_ref);
        if texts.clone().any(|text| text.len() > super::MAX_TOPIC) {
            return Err(SelectorError::TooLong);
        }
        let all = texts.clone().any(|text| text == "*");
        let templates = texts.clone().filter(|text| text.contains('{'));
        let templates = templates.filter_map(|text| Some((Template::new(text)?, text.len())));
        let templates = templates.map(|(template, length)| (Arc::new(template), length));
        let (templates, lengths): (Vec<Arc<Template>>, Vec<usize>) = templates.unzip();
        let mut exact: Vec<Box<str>> = texts.map(Into::into).collect();
        exact.sort_unstable();
        exact.dedup();
        let templates = templates.into();
        let template_bytes = lengths.iter().sum();
        Ok(Self { all, exact: exact.into(), templates, template_bytes })
    }

    /// True if one of them selects `topic`.
    pub fn select(&self, topic: &str) -> bool {
        self.all
            || self.exact.binary_search_by(|known| (**known).cmp(topic)).is_ok()
            || self.templates.iter().any(|template| template.matches(topic))
    }

    /// The bytes of all templates: the time of a match is their product with the topic's.
    pub fn template_bytes(&self) -> usize {
        self.template_bytes
    }

    /// The updates that they select, for the hub to wake a subscriber by.
    pub fn interest(&self) -> Interest {
        let patterns = self.templates.iter().cloned();
        Interest {
            all: self.all,
            exact: self.exact.iter().map(|topic| Interest::hash(topic)).collect(),
            patterns: patterns.map(|template| template as Arc<dyn TopicPattern>).collect(),
            topics: |payload, show| {
                Stored::of(payload).iter().flat_map(Stored::topics).for_each(show);
            },
        }
    }

    /// Bytes of memory that they take, their places in the hub's index included.
    pub fn cost(&self) -> usize {
        const INDEXED: usize = 64;
        let exact = self.exact.iter().map(|text| text.len() + size_of::<Box<str>>() + INDEXED);
        let templates = self.templates.iter().map(|template| template.cost() + INDEXED);
        exact.sum::<usize>() + templates.sum::<usize>()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_is_a_topic_a_template_or_all() {
        let some = Selectors::new(&["https://a.example/1", "/books/{id}", "/odd/{", "b"]).unwrap();
        for topic in ["https://a.example/1", "/books/7", "/books/{id}", "/odd/{", "b"] {
            assert!(some.select(topic), "{topic}");
        }
        for topic in ["https://a.example/10", "/books/7/x", "/odd/", "", "*"] {
            assert!(!some.select(topic), "{topic}");
        }
        assert!(Selectors::new(&["a", "*"]).unwrap().select("anything"));
        assert!(!Selectors::default().select("a"));
    }

    #[test]
    fn their_number_and_length_are_bounded() {
        assert_eq!(Selectors::new(&vec!["a"; 1001]), Err(SelectorError::TooMany));
        assert_eq!(Selectors::new(&["x".repeat(2049)]), Err(SelectorError::TooLong));
        assert!(Selectors::new(&vec!["a"; 1000]).is_ok());
    }
}
