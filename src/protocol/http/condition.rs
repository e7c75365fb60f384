//! Conditions on the parameters of a request: `do=get`, `last!=`, `subscribed`.
//!
//! A parameter counts wherever it is, in the query or in the form. Values are compared as PHP's
//! `$_GET` has them: decoded, to the letter.

use super::query::Query;
use std::fmt;

/// One condition, as a rule's `when` or `unless` names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// The name of the parameter.
    pub name: String,
    /// The test of its value.
    pub test: Test,
}

/// The test of a parameter that must be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    /// Any value will do: `name` in `when`.
    Present,
    /// The value is not empty; an array is not: `name` in `unless`.
    Filled,
    /// `name=value`: the value is this one.
    Is(String),
    /// `name!=value`: the value is another one, or an array.
    IsNot(String),
}

impl Condition {
    /// Splits `text` into the name and the comparison with a value; `bare` is the test where there
    /// is none.
    pub fn new(text: &str, bare: Test) -> Self {
        let (name, test) = match text.split_once('=') {
            None => (text, bare),
            Some((name, value)) => match name.strip_suffix('!') {
                Some(name) => (name, Test::IsNot(value.to_owned())),
                None => (name, Test::Is(value.to_owned())),
            },
        };
        Self { name: name.to_owned(), test }
    }

    /// True if the query or the form fulfils it.
    pub fn holds(&self, query: &Query, form: Option<&Query>) -> bool {
        self.holds_in(query) || form.is_some_and(|form| self.holds_in(form))
    }

    fn holds_in(&self, parameters: &Query) -> bool {
        let scalar = || parameters.bytes(&self.name);
        match &self.test {
            Test::Present => parameters.has(&self.name),
            Test::Filled => parameters.has_value(&self.name),
            Test::Is(value) => scalar() == Some(value.as_bytes()),
            Test::IsNot(value) => parameters.has(&self.name) && scalar() != Some(value.as_bytes()),
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        match &self.test {
            Test::Present | Test::Filled => Ok(()),
            Test::Is(value) => write!(f, "={value}"),
            Test::IsNot(value) => write!(f, "!={value}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(condition: &str, query: &str, form: Option<&str>) -> bool {
        let query = Query::parse(query);
        let form = form.map(Query::parse);
        Condition::new(condition, Test::Present).holds(&query, form.as_ref())
    }

    #[test]
    fn a_value_is_compared_as_php_has_it() {
        for query in ["do=get", "x=1&do=get", "do=send&do=get", "d%6f=%67et"] {
            assert!(holds("do=get", query, None), "{query}");
        }
        for query in ["", "do", "do=", "do=Get", "do=get&do=send", "do[]=get", "do=get%20"] {
            assert!(!holds("do=get", query, None), "{query}");
        }
        assert!(holds("do=a b=c", "do=a+b%3Dc", None));
        assert!(holds("do=", "do", None) && !holds("do=", "", None));
        assert!(holds("do=get", "", Some("do=get")) && !holds("do=get", "", Some("do=send")));
        assert!(holds("do=get", "do=get", Some("do=send")));
    }

    #[test]
    fn another_value_must_be_there() {
        assert!(holds("last!=", "last=0", None) && holds("last!=", "last[]=", None));
        assert!(!holds("last!=", "last=", None) && !holds("last!=", "", None));
        assert!(holds("last!=0", "last=1", None) && holds("last!=0", "last=", None));
        assert!(!holds("last!=0", "last=0", None));
    }

    #[test]
    fn a_condition_is_shown_as_it_is_written() {
        for text in ["do", "do=get", "do=", "last!=", "a!=b=c"] {
            assert_eq!(Condition::new(text, Test::Filled).to_string(), text);
        }
    }
}
