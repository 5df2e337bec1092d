//! Settings that are one of some words.

/// Defines the type of a setting that is one of some words. The error for another word lists them.
macro_rules! choice {
    ($(#[$of_type:meta])* $vis:vis enum $name:ident { $($(#[$of_variant:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$of_type])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
        #[serde(try_from = "String", into = "&'static str")]
        $vis enum $name {
            $($(#[$of_variant])* $variant,)*
        }

        impl $name {
            /// Every choice.
            $vis const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The word in the settings.
            $vis const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }
        }

        impl From<$name> for &'static str {
            fn from(choice: $name) -> Self {
                choice.name()
            }
        }

        impl TryFrom<String> for $name {
            type Error = String;

            fn try_from(word: String) -> Result<Self, String> {
                let known = Self::ALL.iter().copied().find(|choice| choice.name() == word);
                known.ok_or_else(|| $crate::config::choice::expected(Self::ALL.iter().map(|choice| choice.name())))
            }
        }
    };
}

pub(super) use choice;

/// The error for a word that is none of these.
pub(super) fn expected<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let words: Vec<String> = words.map(|word| format!("\"{word}\"")).collect();
    format!("Write {}.", words.join(" or "))
}

#[cfg(test)]
mod tests {
    choice! {
        /// A size.
        enum Size {
            /// Small.
            Small = "small",
            /// Large.
            Large = "very-large",
        }
    }

    #[test]
    fn a_choice_is_read_and_written_as_its_word() {
        assert_eq!(Size::ALL.iter().map(|size| size.name()).collect::<Vec<_>>(), ["small", "very-large"]);
        assert_eq!(Size::try_from("very-large".to_owned()), Ok(Size::Large));
        assert_eq!(serde_json::to_value(Size::Large).unwrap(), "very-large");
        for other in ["", "Small", "large"] {
            assert_eq!(Size::try_from(other.to_owned()).unwrap_err(), "Write \"small\" or \"very-large\".");
        }
    }
}
