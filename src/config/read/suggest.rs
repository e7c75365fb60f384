//! Suggestions of known words for mistyped ones.

/// The nearest of `known` to `text`; a third of it may be mistyped.
pub(in crate::config) fn nearest<'a>(
    text: &str,
    known: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    let most = (text.chars().count() / 3).max(1);
    let near = known.map(|known| (strsim::damerau_levenshtein(text, known), known));
    near.filter(|(distance, _)| *distance <= most).min().map(|(_, known)| known)
}

/// The value of `word`. The error lists all words, and the nearest.
pub(in crate::config) fn one_of<T: Copy>(
    words: &[(&'static str, T)],
    word: &str,
) -> Result<T, String> {
    if let Some((_, meaning)) = words.iter().find(|(known, _)| *known == word) {
        return Ok(*meaning);
    }
    let known: Vec<&str> = words.iter().map(|(known, _)| *known).collect();
    let nearest = nearest(word, known.iter().copied());
    let hint = nearest.map_or(String::new(), |nearest| format!("; did you mean \"{nearest}\"?"));
    Err(format!("\"{word}\" is none of {}{hint}", known.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_a_small_slip_away() {
        let known = || ["timeout", "jitter", "max"].into_iter();
        assert_eq!(nearest("timeot", known()), Some("timeout"));
        assert_eq!(nearest("time_out", known()), Some("timeout"));
        assert_eq!(nearest("mxa", known()), Some("max"));
        assert_eq!(nearest("colour", known()), None);
    }

    #[test]
    fn a_word_that_is_none_is_told_the_others() {
        let words = [("latest", 1), ("oldest", 2)];
        assert_eq!(one_of(&words, "oldest"), Ok(2));
        let error = one_of(&words, "oldset");
        assert_eq!(
            error,
            Err("\"oldset\" is none of latest, oldest; did you mean \"oldest\"?".into())
        );
    }
}
