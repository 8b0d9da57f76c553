//! HTML and SVG as a tree: whatever text is put in comes out escaped, and all that is opened is closed.

use std::fmt::{self, Display, Write as _};

/// What HTML writes without an end.
const VOID: [&str; 2] = ["meta", "br"];

/// An element with all that is in it.
#[derive(Clone, Debug)]
pub(super) struct Element {
    name: &'static str,
    attributes: Vec<(&'static str, String)>,
    children: Vec<Child>,
}

#[derive(Clone, Debug)]
enum Child {
    Element(Element),
    Text(String),
    Verbatim(&'static str),
}

/// An element without anything in it.
pub(super) const fn element(name: &'static str) -> Element {
    Element { name, attributes: Vec::new(), children: Vec::new() }
}

/// An element with a text in it.
pub(super) fn with_text(name: &'static str, text: impl Display) -> Element {
    element(name).text(text)
}

impl Element {
    /// With this attribute.
    pub(super) fn attribute(mut self, name: &'static str, value: impl Display) -> Self {
        self.attributes.push((name, value.to_string()));
        self
    }

    /// With a length or a place in a drawing. A tenth of a pixel is all that is seen.
    pub(super) fn place(self, name: &'static str, value: f64) -> Self {
        self.attribute(name, rounded(value))
    }

    /// Of this class, or these, parted by spaces.
    pub(super) fn class(self, class: impl Display) -> Self {
        self.attribute("class", class)
    }

    /// With this text behind what is in it.
    pub(super) fn text(mut self, text: impl Display) -> Self {
        self.children.push(Child::Text(text.to_string()));
        self
    }

    /// With a part of our own program behind what is in it, as it stands: a style sheet, a script.
    pub(super) fn verbatim(mut self, text: &'static str) -> Self {
        self.children.push(Child::Verbatim(text));
        self
    }

    /// With this behind what is in it.
    pub(super) fn with(mut self, child: Self) -> Self {
        self.children.push(Child::Element(child));
        self
    }

    /// With all these behind what is in it.
    pub(super) fn with_all(mut self, children: impl IntoIterator<Item = Self>) -> Self {
        self.children.extend(children.into_iter().map(Child::Element));
        self
    }
}

/// To a tenth, without a needless `.0`.
pub(super) fn rounded(value: f64) -> String {
    let tenths = (value * 10.0).round() / 10.0;
    // Adding zero makes a negative zero positive.
    format!("{}", tenths + 0.0)
}

impl Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}", self.name)?;
        for (name, value) in &self.attributes {
            write!(f, " {name}=\"")?;
            escape(value, f)?;
            f.write_char('"')?;
        }
        if VOID.contains(&self.name) {
            return f.write_str("/>");
        }
        f.write_char('>')?;
        for child in &self.children {
            match child {
                Child::Element(element) => element.fmt(f)?,
                Child::Text(text) => escape(text, f)?,
                Child::Verbatim(text) => f.write_str(text)?,
            }
        }
        write!(f, "</{}>", self.name)
    }
}

/// Writes what shows as `text`, in an element as well as in an attribute.
fn escape(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for char in text.chars() {
        match char {
            '&' => f.write_str("&amp;")?,
            '<' => f.write_str("&lt;")?,
            '>' => f.write_str("&gt;")?,
            '"' => f.write_str("&quot;")?,
            '\'' => f.write_str("&#39;")?,
            '\n' | '\t' => f.write_char(char)?,
            unseen if is_unseen(unseen) => write!(f, "{}", unseen.escape_unicode())?,
            seen => f.write_char(seen)?,
        }
    }
    Ok(())
}

/// Whether a document may not hold it, or whether it would show other text than there is: control
/// characters, marks that turn the direction of writing, and what Unicode says is no character.
fn is_unseen(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        || matches!(char, '\u{fdd0}'..='\u{fdef}')
        || u32::from(char) & 0xfffe == 0xfffe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_attributes_show_what_they_were_given() {
        let link = element("p").attribute("title", "a\"b'").text("1 < 2 & 3 > 2\u{0}\u{202e}");
        assert_eq!(
            link.to_string(),
            "<p title=\"a&quot;b&#39;\">1 &lt; 2 &amp; 3 &gt; 2\\u{0}\\u{202e}</p>"
        );
    }

    #[test]
    fn what_has_no_end_in_html_gets_none() {
        let page = element("div").with(element("br")).with(element("span"));
        assert_eq!(page.to_string(), "<div><br/><span></span></div>");
    }

    #[test]
    fn places_are_short() {
        assert_eq!(rounded(3.0), "3");
        assert_eq!(rounded(-0.01), "0");
        assert_eq!(rounded(12.345), "12.3");
    }
}
