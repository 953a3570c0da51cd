//! A place in the data. What a page shows is taken from such a place and carries its address, so that no figure can be
//! without one.

use std::time::Duration;

use maud::{Markup, Render, html};
use serde_json::Value;

use crate::values;

/// A value and its address.
#[derive(Debug, Clone)]
pub struct At<'a> {
    value: &'a Value,
    /// A JSON pointer, RFC 6901.
    pointer: String,
}

impl<'a> At<'a> {
    /// The whole.
    pub fn whole(value: &'a Value) -> At<'a> {
        At {
            value,
            pointer: String::new(),
        }
    }

    /// A member. One that is not there is like one that is not known.
    pub fn get(&self, key: &str) -> At<'a> {
        At {
            value: self.value.get(key).unwrap_or(&Value::Null),
            pointer: format!(
                "{}/{}",
                self.pointer,
                key.replace('~', "~0").replace('/', "~1")
            ),
        }
    }

    /// The members of a list.
    pub fn items(&self) -> impl Iterator<Item = At<'a>> + use<'a> {
        let pointer = self.pointer.clone();
        let items = self.value.as_array().map_or(&[][..], Vec::as_slice);
        items.iter().enumerate().map(move |(nth, value)| At {
            value,
            pointer: format!("{pointer}/{nth}"),
        })
    }

    /// How many members a list has.
    pub fn len(&self) -> usize {
        self.value.as_array().map_or(0, Vec::len)
    }

    pub fn is_null(&self) -> bool {
        self.value.is_null()
    }

    pub fn is_true(&self) -> bool {
        self.value == &Value::Bool(true)
    }

    /// A text; empty where it is none.
    pub fn text(&self) -> &'a str {
        self.value.as_str().unwrap_or_default()
    }

    pub fn number(&self) -> Option<f64> {
        self.value.as_f64()
    }

    /// A number that counts something; nothing counts as none.
    pub fn count(&self) -> u64 {
        self.value.as_u64().unwrap_or_default()
    }

    pub fn pointer(&self) -> &str {
        &self.pointer
    }

    /// The value as it is written in attributes, where a test finds it again.
    pub fn raw(&self) -> String {
        match self.value {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        }
    }

    /// Shows something that was made of this value.
    pub fn show(&self, shown: impl Render) -> Markup {
        html! { data value=(self.raw()) data-json=(self.pointer) { (shown) } }
    }

    /// A text, word for word.
    pub fn words(&self) -> Markup {
        self.show(self.text())
    }

    /// A name, be it a text or a number: without signs between its digits.
    pub fn name(&self) -> Markup {
        self.show(self.raw())
    }

    /// `12,345`
    pub fn counted(&self) -> Markup {
        self.known(|at| values::count(at.count()))
    }

    /// `1.5 GiB`
    pub fn bytes(&self) -> Markup {
        self.known(|at| values::bytes(at.count()))
    }

    /// `1 h 2 min`
    pub fn span(&self) -> Markup {
        self.known(|at| span(at.count()))
    }

    /// `42.5 %`
    pub fn percent(&self) -> Markup {
        self.known(|at| format!("{:.1} %", at.number().unwrap_or_default()))
    }

    /// `2026-11-26 14:05`: local time, as the data have it.
    pub fn time(&self) -> Markup {
        if self.is_null() {
            return self.unknown();
        }
        html! {
            time datetime=(self.raw()) data-json=(self.pointer) { (minute(self.text())) }
        }
    }

    /// `14:05`
    pub fn clock(&self) -> Markup {
        let time = self.text().get(11..16).unwrap_or(self.text());
        html! { time datetime=(self.raw()) data-json=(self.pointer) { (time) } }
    }

    fn known(&self, shown: impl Fn(&At<'a>) -> String) -> Markup {
        match self.is_null() {
            true => self.unknown(),
            // A number and its unit stay together.
            false => self.show(shown(self).replace(' ', "\u{a0}")),
        }
    }

    /// What is not known is said to be so.
    pub fn unknown(&self) -> Markup {
        html! { data .unknown value="" data-json=(self.pointer) { "not known" } }
    }
}

/// Local time without seconds and without its distance to UTC.
pub fn minute(time: &str) -> String {
    match (time.get(..10), time.get(11..16)) {
        (Some(date), Some(minute)) => format!("{date} {minute}"),
        _ => time.to_owned(),
    }
}

/// A span of time for people; days where there are two of them.
pub fn span(seconds: u64) -> String {
    match seconds {
        172_800.. if seconds % 86_400 < 3600 => format!("{} d", seconds / 86_400),
        172_800.. => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
        0 => "0 s".to_owned(),
        _ => values::duration(Duration::from_secs(seconds)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_lead_back_to_the_value() {
        let json = serde_json::json!({"a/b": [{"~": 1536}, null]});
        let whole = At::whole(&json);
        let at = whole.get("a/b").items().next().unwrap().get("~");
        assert_eq!(at.pointer(), "/a~1b/0/~0");
        assert_eq!(json.pointer(at.pointer()), Some(&serde_json::json!(1536)));
        assert_eq!(
            at.bytes().into_string(),
            "<data value=\"1536\" data-json=\"/a~1b/0/~0\">1.5\u{a0}KiB</data>"
        );
        let null = whole.get("a/b").items().nth(1).unwrap();
        assert!(null.bytes().into_string().contains("not known"));
        assert!(whole.get("none").is_null());
    }

    #[test]
    fn what_comes_from_others_is_text() {
        let json = serde_json::json!(r#""><script>alert(1)</script>"#);
        let shown = At::whole(&json).words().into_string();
        assert!(
            !shown.contains("<script") && !shown.contains(r#"value="">"#),
            "{shown}"
        );
    }

    #[test]
    fn spans() {
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (86_400, "24 h 0 min"),
            (200_000, "2 d 7 h"),
            (7 * 86_400, "7 d"),
        ] {
            assert_eq!(span(seconds), text);
        }
        assert_eq!(minute("2026-11-26T14:05:06+01:00"), "2026-11-26 14:05");
    }
}
