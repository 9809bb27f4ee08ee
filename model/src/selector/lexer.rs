//! Text -> tokens of Calico's selector language, each with the column where it starts.

use super::parser::{SelectorError, SelectorErrorKind};

/// One token. Words are label names, operators and function names alike: which one a word is
/// depends on where it stands, so that a label may be called `in` or `has`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token<'a> {
    Word(&'a str),
    Text(&'a str),
    Equal,
    NotEqual,
    Not,
    And,
    Or,
    Open,
    Close,
    OpenSet,
    CloseSet,
    Comma,
    End,
}

impl Token<'_> {
    /// The token as the user wrote it, for messages.
    pub(super) fn describe(self) -> String {
        match self {
            Self::Word(word) => format!("`{word}`"),
            Self::Text(text) => format!("the string '{text}'"),
            Self::Equal => "`==`".into(),
            Self::NotEqual => "`!=`".into(),
            Self::Not => "`!`".into(),
            Self::And => "`&&`".into(),
            Self::Or => "`||`".into(),
            Self::Open => "`(`".into(),
            Self::Close => "`)`".into(),
            Self::OpenSet => "`{`".into(),
            Self::CloseSet => "`}`".into(),
            Self::Comma => "`,`".into(),
            Self::End => "the end".into(),
        }
    }
}

/// Splits `text`. The last token is always [`Token::End`]; columns count characters from 1.
pub(super) fn tokens(text: &str) -> Result<Vec<(usize, Token<'_>)>, SelectorError> {
    let mut found = Vec::new();
    let mut rest = text;
    let mut column = 1;
    loop {
        let trimmed = rest.trim_start();
        column += rest[..rest.len() - trimmed.len()].chars().count();
        let (token, length) = next(trimmed).map_err(|kind| SelectorError { column, kind })?;
        found.push((column, token));
        if token == Token::End {
            return Ok(found);
        }
        column += trimmed[..length].chars().count();
        rest = &trimmed[length..];
    }
}

/// The token that `text` starts with and its length in bytes.
fn next(text: &str) -> Result<(Token<'_>, usize), SelectorErrorKind> {
    let Some(first) = text.chars().next() else {
        return Ok((Token::End, 0));
    };
    let pair = [
        ("==", Token::Equal),
        ("!=", Token::NotEqual),
        ("&&", Token::And),
        ("||", Token::Or),
    ];
    if let Some((_, token)) = pair
        .into_iter()
        .find(|(symbol, _)| text.starts_with(symbol))
    {
        return Ok((token, 2));
    }
    let token = match first {
        '!' => Token::Not,
        '(' => Token::Open,
        ')' => Token::Close,
        '{' => Token::OpenSet,
        '}' => Token::CloseSet,
        ',' => Token::Comma,
        '\'' | '"' => {
            let body = &text[1..];
            let length = body
                .find(first)
                .ok_or(SelectorErrorKind::UnterminatedString)?;
            return Ok((Token::Text(&body[..length]), length + 2));
        }
        _ if is_word(first) => {
            let length = text.find(|c| !is_word(c)).unwrap_or(text.len());
            return Ok((Token::Word(&text[..length]), length));
        }
        _ => return Err(SelectorErrorKind::Character(first)),
    };
    Ok((token, 1))
}

/// The characters of label names: letters, digits and `_ . / -`.
pub(super) fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '-')
}
