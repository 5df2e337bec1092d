//! Single-line text that people read, such as a name. Invisible characters are rejected, because they make two names
//! look the same, or a name look empty.

use std::fmt::Write;

/// The first error in a line of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextError {
    /// The text is not empty and consists of blank characters.
    Blank,
    /// A control character, such as a line break.
    Control(char),
    /// A character that is not displayed, or one that changes the direction of the text.
    Invisible(char),
}

type Ranges = [(u32, u32)];

/// The Unicode category `Cc`.
const CONTROL: &Ranges = &[(0x00, 0x1f), (0x7f, 0x9f)];

/// Characters that are never allowed: line separators, bidirectional controls, fillers, zero-width spaces, annotations.
/// These are Unicode's `Default_Ignorable_Code_Point` without joiners and selectors, and U+2028, U+2029 and U+FFF9 to
/// U+FFFB.
const INVISIBLE: &Ranges = &[
    (0x00ad, 0x00ad),
    (0x034f, 0x034f),
    (0x061c, 0x061c),
    (0x115f, 0x1160),
    (0x17b4, 0x17b5),
    (0x180e, 0x180e),
    (0x200b, 0x200b),
    (0x200e, 0x200f),
    (0x2028, 0x202e),
    (0x2060, 0x206f),
    (0x3164, 0x3164),
    (0xfeff, 0xfeff),
    (0xffa0, 0xffa0),
    (0xfff0, 0xfffb),
    (0x1_bca0, 0x1_bca3),
    (0x1_d173, 0x1_d17a),
    (0xe_0000, 0xe_00ff),
    (0xe_01f0, 0xe_0fff),
];

/// Zero-width non-joiner and joiner. Persian, Indic scripts and emoji require them between two of [`BASES`].
const JOINERS: &Ranges = &[(0x200c, 0x200d)];

/// Variation selectors, which select a glyph for the preceding character from [`BASES`].
const SELECTORS: &Ranges = &[(0x180b, 0x180d), (0x180f, 0x180f), (0xfe00, 0xfe0f), (0xe_0100, 0xe_01ef)];

/// Characters next to which joiners and selectors are allowed: scripts from Arabic to Meetei Mayek, symbols,
/// ideographs, and everything beyond the Basic Multilingual Plane.
const BASES: &Ranges = &[
    (0x00a9, 0x00a9),
    (0x00ae, 0x00ae),
    (0x0600, 0x061b),
    (0x061d, 0x115e),
    (0x1161, 0x167f),
    (0x1681, 0x17b3),
    (0x17b6, 0x180a),
    (0x1810, 0x1cff),
    (0x203c, 0x203c),
    (0x2049, 0x2049),
    (0x2122, 0x2122),
    (0x2139, 0x2139),
    (0x2190, 0x27ff),
    (0x2801, 0x2bff),
    (0x3001, 0x3163),
    (0x3165, 0x9fff),
    (0xa800, 0xabff),
    (0xf900, 0xfaff),
    (0x1_0000, 0x10_ffff),
];

/// Blank characters: Unicode's `White_Space` without controls, and the empty Braille cell.
const BLANK: &Ranges = &[
    (0x20, 0x20),
    (0xa0, 0xa0),
    (0x1680, 0x1680),
    (0x2000, 0x200a),
    (0x202f, 0x202f),
    (0x205f, 0x205f),
    (0x2800, 0x2800),
    (0x3000, 0x3000),
];

fn is_in(ranges: &Ranges, character: char) -> bool {
    let point = u32::from(character);
    ranges.iter().any(|(first, last)| (*first..=*last).contains(&point))
}

/// Whether the character is a control character or invisible. Joiners and selectors count as invisible.
pub fn is_invisible(character: char) -> bool {
    [CONTROL, INVISIBLE, JOINERS, SELECTORS].iter().any(|ranges| is_in(ranges, character))
}

/// The first error in `text`, or `None`. Empty text is valid.
pub fn first_error(text: &str) -> Option<TextError> {
    let (mut previous, mut joiner) = (None, None);
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let follows_base = previous.is_some_and(|previous| is_in(BASES, previous));
        if is_in(CONTROL, character) {
            return Some(TextError::Control(character));
        } else if is_in(INVISIBLE, character) {
            return Some(TextError::Invisible(character));
        } else if is_in(JOINERS, character) {
            if !follows_base {
                return Some(TextError::Invisible(character));
            }
            joiner = Some(character);
            previous = None;
        } else if is_in(SELECTORS, character) {
            let is_keycap = previous.is_some_and(|previous| previous.is_ascii_digit() || "#*".contains(previous))
                && character == '\u{fe0f}'
                && characters.peek() == Some(&'\u{20e3}');
            if !follows_base && !is_keycap {
                return Some(TextError::Invisible(character));
            }
            // A joiner may follow a selector. A second selector must not.
            let may_join = follows_base && characters.peek().is_some_and(|next| is_in(JOINERS, *next));
            previous = previous.filter(|_| may_join);
        } else {
            if let Some(joiner) = joiner.take().filter(|_| !is_in(BASES, character)) {
                return Some(TextError::Invisible(joiner));
            }
            previous = Some(character);
        }
    }
    match joiner {
        Some(joiner) => Some(TextError::Invisible(joiner)),
        None if !text.is_empty() && text.chars().all(|character| is_in(BLANK, character)) => Some(TextError::Blank),
        None => None,
    }
}

/// A regular expression that every valid text matches, in the syntax that ECMAScript and Python share. It is less
/// strict than [`first_error`]: it accepts joiners and selectors anywhere, and all characters beyond the Basic
/// Multilingual Plane.
pub fn pattern(may_be_empty: bool) -> String {
    let any = format!("[^{}]", class(&[CONTROL, INVISIBLE]));
    let visible = format!("[^{}]", class(&[CONTROL, INVISIBLE, JOINERS, SELECTORS, BLANK]));
    let line = format!("{any}*{visible}{any}*");
    if may_be_empty { format!("^({line})?$") } else { format!("^{line}$") }
}

/// The members of a character class, without those beyond the Basic Multilingual Plane.
fn class(sets: &[&Ranges]) -> String {
    let mut members = String::new();
    for (first, last) in sets.iter().flat_map(|set| set.iter()).filter(|(first, _)| *first <= 0xffff) {
        // Writing to a String cannot fail.
        let _ = match first == last {
            true => write!(members, "\\u{first:04x}"),
            false => write!(members, "\\u{first:04x}-\\u{last:04x}"),
        };
    }
    members
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ordinary_text_is_valid() {
        for text in [
            "",
            "Ada Lovelace",
            "Jos\u{e9} O\u{2019}Neill-Smith",
            "\u{639}\u{644}\u{6cc}\u{200c}\u{631}\u{636}\u{627}", // Persian, with a non-joiner
            "\u{dc1}\u{dca}\u{200d}\u{dbb}\u{dd3}",               // Sinhala, with a joiner
            "\u{845b}\u{e0100}\u{57ce}",                          // an ideograph with its variant
            "\u{1f469}\u{1f3fd}\u{200d}\u{1f4bb} notes",
            "\u{2764}\u{fe0f}\u{200d}\u{1f525}",
            "\u{2600}\u{fe0f} Holiday",
            "1\u{fe0f}\u{20e3} First",
            "\u{a9}\u{fe0f}",
            " spaces around ",
            "\u{5d0}\u{5d1} (\u{5d2})",
        ] {
            assert_eq!(first_error(text), None, "{text:?}");
        }
    }

    #[test]
    fn invisible_characters_are_rejected_and_named() {
        for invisible in [
            "\u{ad}",
            "\u{34f}",
            "\u{61c}",
            "\u{115f}",
            "\u{1160}",
            "\u{17b4}",
            "\u{180e}",
            "\u{200b}",
            "\u{200c}",
            "\u{200d}",
            "\u{200e}",
            "\u{200f}",
            "\u{2028}",
            "\u{2029}",
            "\u{202a}",
            "\u{202b}",
            "\u{202c}",
            "\u{202d}",
            "\u{202e}",
            "\u{2060}",
            "\u{2061}",
            "\u{2062}",
            "\u{2063}",
            "\u{2064}",
            "\u{2066}",
            "\u{2067}",
            "\u{2068}",
            "\u{2069}",
            "\u{206a}",
            "\u{206f}",
            "\u{3164}",
            "\u{fe00}",
            "\u{fe0f}",
            "\u{feff}",
            "\u{ffa0}",
            "\u{fff9}",
            "\u{1bca0}",
            "\u{1d173}",
            "\u{e0001}",
            "\u{e0041}",
            "\u{e0100}",
        ] {
            let character = invisible.chars().next().unwrap();
            assert!(is_invisible(character), "{invisible:?}");
            let embedded = format!("Ada{invisible}Love");
            for text in [invisible.to_owned(), embedded, format!("{invisible}Ada"), format!("Ada{invisible}")] {
                assert_eq!(first_error(&text), Some(TextError::Invisible(character)), "{text:?}");
            }
        }
        for text in ["a\nb", "\t", "a\r", "\0", "\u{85}", "\u{7f}"] {
            assert!(matches!(first_error(text), Some(TextError::Control(_))), "{text:?}");
        }
        for text in [" ", "     ", "\u{a0}\u{3000}", "\u{2800}\u{2800}", "\u{1680}"] {
            assert_eq!(first_error(text), Some(TextError::Blank), "{text:?}");
        }
    }

    #[test]
    fn a_joiner_requires_bases_on_both_sides_and_a_selector_one_before_it() {
        for text in [
            "\u{639}\u{200c}",
            "\u{639}\u{200c}\u{200c}\u{639}",
            "\u{200c}\u{639}",
            "\u{639}\u{200c}a",
            "a\u{200c}\u{639}",
            "\u{639} \u{200c}\u{639}",
            "\u{2764}\u{fe0f}\u{fe0f}",
            "\u{2764}\u{200d}\u{fe0f}",
            "1\u{fe0f}",
            "1\u{fe0f}\u{fe0f}\u{20e3}",
            "1\u{200d}2",
        ] {
            assert!(matches!(first_error(text), Some(TextError::Invisible(_))), "{text:?}");
        }
    }

    /// Generates texts that match the pattern.
    fn matching(may_be_empty: bool) -> impl Strategy<Value = String> {
        prop::string::string_regex(pattern(may_be_empty).trim_start_matches('^').trim_end_matches('$')).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig { max_shrink_iters: 64, ..ProptestConfig::with_cases(64) })]

        #[test]
        fn text_that_matches_the_pattern_is_valid_apart_from_joiners_selectors_and_characters_beyond_the_plane(
            text in matching(false), other in matching(true),
        ) {
            let is_exception = |found| found > '\u{ffff}' || is_in(JOINERS, found) || is_in(SELECTORS, found);
            for text in [text, other] {
                let error = first_error(&text);
                prop_assert!(error.is_none_or(|error| matches!(error, TextError::Invisible(found) if is_exception(found))), "{:?}", text);
            }
        }

        #[test]
        fn no_text_panics(text in "(\\PC|[\u{200c}\u{200d}\u{fe0f}\u{639}1\u{20e3}]){0,12}") {
            let _ = first_error(&text);
        }
    }
}
