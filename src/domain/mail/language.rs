//! The languages of mails.

use serde::{Deserialize, Serialize};

/// Maximum number of languages of an `Accept-Language` header that are considered.
const MAX_LANGUAGES: usize = 32;

/// The language of mails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "&'static str")]
pub enum Language {
    /// English.
    #[default]
    English,
    /// German.
    German,
}

impl Language {
    /// Every language.
    pub const ALL: [Self; 2] = [Self::English, Self::German];

    /// The language code (ISO 639-1), as in settings, in the database and in the names of templates.
    pub const fn code(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::German => "de",
        }
    }

    /// The language with this code.
    pub fn of(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|language| language.code() == code)
    }

    /// The language that a caller prefers, by the text of `Accept-Language` (RFC 9110, section 12.5.4). Returns `None`
    /// if the text names none of them.
    pub fn preferred(accept_language: &str) -> Option<Self> {
        let mut best: Option<(f32, Self)> = None;
        for range in accept_language.split(',').take(MAX_LANGUAGES) {
            let (tag, parameters) = range.split_once(';').unwrap_or((range, ""));
            let primary = tag.trim().split('-').next().unwrap_or_default().to_ascii_lowercase();
            let weight = parameters.trim().strip_prefix("q=").map_or(1.0, |weight| weight.parse().unwrap_or(0.0));
            let Some(language) = Self::of(&primary).filter(|_| weight > 0.0) else { continue };
            if best.is_none_or(|(highest, _)| weight > highest) {
                best = Some((weight, language));
            }
        }
        best.map(|(_, language)| language)
    }

    /// A duration in whole minutes, hours or days, in words. Minutes beside three hours or more are left out.
    pub fn duration(self, seconds: i64) -> String {
        // A moment has passed since the link was made.
        let minutes = (seconds + 59) / 60;
        let (number, unit) = match minutes {
            days if days >= 2_880 && days % 1_440 == 0 => (days / 1_440, 2),
            hours if hours >= 180 || hours >= 60 && hours % 60 == 0 => (hours / 60, 1),
            other => (other, 0),
        };
        let [minutes, hours, days] = match self {
            Self::English => [["minute", "minutes"], ["hour", "hours"], ["day", "days"]],
            Self::German => [["Minute", "Minuten"], ["Stunde", "Stunden"], ["Tage", "Tage"]],
        };
        let [one, several] = match unit {
            0 => minutes,
            1 => hours,
            _ => days,
        };
        format!("{number} {}", if number == 1 { one } else { several })
    }
}

impl From<Language> for &'static str {
    fn from(language: Language) -> Self {
        language.code()
    }
}

impl TryFrom<String> for Language {
    type Error = String;

    fn try_from(code: String) -> Result<Self, String> {
        Self::of(&code).ok_or_else(|| {
            let codes = Self::ALL.map(|language| format!("\"{}\"", language.code()));
            format!("Write {}.", codes.join(" or "))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_preferred_language_is_the_known_one_with_the_highest_weight() {
        for (header, expected) in [
            ("de", Some(Language::German)),
            ("de-AT,de;q=0.9,en;q=0.8", Some(Language::German)),
            ("fr, en;q=0.2, de;q=0.7", Some(Language::German)),
            ("DE;q=0.5, en", Some(Language::English)),
            ("fr", None),
            ("", None),
            ("*", None),
            ("de;q=0", None),
            ("de;q=x", None),
        ] {
            assert_eq!(Language::preferred(header), expected, "{header}");
        }
    }

    #[test]
    fn durations_are_whole_numbers_of_the_largest_unit() {
        for (seconds, english, german) in [
            (1_800, "30 minutes", "30 Minuten"),
            (60, "1 minute", "1 Minute"),
            (3_600, "1 hour", "1 Stunde"),
            (86_400, "24 hours", "24 Stunden"),
            (259_200, "3 days", "3 Tage"),
            (5_400, "90 minutes", "90 Minuten"),
            (259_199, "3 days", "3 Tage"),
            (255_000, "70 hours", "70 Stunden"),
        ] {
            assert_eq!(
                (Language::English.duration(seconds), Language::German.duration(seconds)),
                (english.into(), german.into())
            );
        }
    }

    #[test]
    fn languages_are_found_by_their_codes() {
        assert!(Language::ALL.iter().all(|language| Language::try_from(language.code().to_owned()) == Ok(*language)));
        assert_eq!(Language::try_from("fr".to_owned()).unwrap_err(), "Write \"en\" or \"de\".");
    }

    proptest! {
        #[test]
        fn any_header_has_at_most_one_preferred_language(header in "\\PC{0,300}") {
            let _ = Language::preferred(&header);
        }
    }
}
