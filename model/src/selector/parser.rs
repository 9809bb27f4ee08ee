//! Calico's selector language -> [`Selector`].
//!
//! ```text
//! or      = and { "||" and }
//! and     = unary { "&&" unary }
//! unary   = { "!" } primary
//! primary = "(" or ")" | "all()" | "global()" | "has(" label ")" | label test
//! test    = ("==" | "!=" | "contains" | "starts with" | "ends with") string
//!         | ("in" | "not in") "{" [ string { "," string } ] "}"
//! ```
//! An empty text selects everything, as in Calico.

use super::Selector;
use super::lexer::{Token, tokens};
use std::collections::BTreeSet;

/// How deep parentheses and negations may nest, so that no text can exhaust the stack.
pub const MAX_DEPTH: usize = 64;

/// Why a text is not a selector, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: {kind}")]
pub struct SelectorError {
    /// Position of the offending character or word, counting characters from 1.
    pub column: usize,
    /// What is wrong there.
    pub kind: SelectorErrorKind,
}

/// What is wrong with a selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorErrorKind {
    /// A character that starts no token.
    #[error("unexpected character {0:?}")]
    Character(char),
    /// A quote without its partner.
    #[error("the string is not closed")]
    UnterminatedString,
    /// Something else was needed.
    #[error("expected {expected}, found {found}")]
    Expected {
        /// What may stand there.
        expected: &'static str,
        /// What stands there.
        found: String,
    },
    /// More than [`MAX_DEPTH`] levels.
    #[error("nested more than {MAX_DEPTH} levels deep")]
    TooDeep,
}

impl Selector {
    /// Reads Calico's selector syntax, such as `role == 'db' && !has(legacy)`.
    pub fn parse_calico(text: &str) -> Result<Self, SelectorError> {
        let tokens = tokens(text)?;
        let mut parser = Parser {
            tokens,
            position: 0,
        };
        if parser.peek() == Token::End {
            return Ok(Self::All);
        }
        let selector = parser.or(0)?;
        match parser.peek() {
            Token::End => Ok(selector),
            _ => Err(parser.expected("`&&`, `||` or the end")),
        }
    }
}

struct Parser<'a> {
    /// Ends with [`Token::End`].
    tokens: Vec<(usize, Token<'a>)>,
    position: usize,
}

impl<'a> Parser<'a> {
    fn or(&mut self, depth: usize) -> Result<Selector, SelectorError> {
        self.joined(depth, Token::Or, Self::and, Selector::Or)
    }

    fn and(&mut self, depth: usize) -> Result<Selector, SelectorError> {
        self.joined(depth, Token::And, Self::unary, Selector::And)
    }

    fn joined(
        &mut self,
        depth: usize,
        operator: Token<'static>,
        part: fn(&mut Self, usize) -> Result<Selector, SelectorError>,
        join: fn(Vec<Selector>) -> Selector,
    ) -> Result<Selector, SelectorError> {
        let first = part(self, depth)?;
        if self.peek() != operator {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.accept(operator) {
            parts.push(part(self, depth)?);
        }
        Ok(join(parts))
    }

    fn unary(&mut self, depth: usize) -> Result<Selector, SelectorError> {
        if depth > MAX_DEPTH {
            return Err(self.fail(SelectorErrorKind::TooDeep));
        }
        if self.accept(Token::Not) {
            return Ok(match self.unary(depth + 1)? {
                Selector::All => Selector::None,
                inner => Selector::Not(Box::new(inner)),
            });
        }
        if self.accept(Token::Open) {
            let inner = self.or(depth + 1)?;
            self.expect(Token::Close, "`)`")?;
            return Ok(inner);
        }
        let label = self.word("a label name, `has(…)`, `all()`, `global()`, `!` or `(`")?;
        if self.peek() == Token::Open {
            self.function(label)
        } else {
            self.test(label.to_owned())
        }
    }

    fn function(&mut self, name: &str) -> Result<Selector, SelectorError> {
        if !matches!(name, "has" | "all" | "global") {
            self.position -= 1;
            return Err(self.expected("`has(…)`, `all()` or `global()`"));
        }
        self.expect(Token::Open, "`(`")?;
        let selector = match name {
            "has" => Selector::Has(self.word("a label name")?.to_owned()),
            "all" => Selector::All,
            _ => Selector::Global,
        };
        self.expect(Token::Close, "`)`")?;
        Ok(selector)
    }

    fn test(&mut self, label: String) -> Result<Selector, SelectorError> {
        const OPERATORS: &str =
            "`==`, `!=`, `in`, `not in`, `contains`, `starts with` or `ends with`";
        let operator = self.peek();
        self.position += 1;
        match operator {
            Token::Equal => Ok(Selector::Eq(label, self.text()?)),
            Token::NotEqual => Ok(Selector::Ne(label, self.text()?)),
            Token::Word("contains") => Ok(Selector::Contains(label, self.text()?)),
            Token::Word("startswith") => Ok(Selector::StartsWith(label, self.text()?)),
            Token::Word("endswith") => Ok(Selector::EndsWith(label, self.text()?)),
            Token::Word("starts") => {
                self.expect(Token::Word("with"), "`with`")?;
                Ok(Selector::StartsWith(label, self.text()?))
            }
            Token::Word("ends") => {
                self.expect(Token::Word("with"), "`with`")?;
                Ok(Selector::EndsWith(label, self.text()?))
            }
            Token::Word("in") => Ok(Selector::In(label, self.set()?)),
            Token::Word("notin") => Ok(Selector::NotIn(label, self.set()?)),
            Token::Word("not") => {
                self.expect(Token::Word("in"), "`in`")?;
                Ok(Selector::NotIn(label, self.set()?))
            }
            _ => {
                self.position -= 1;
                Err(self.expected(OPERATORS))
            }
        }
    }

    fn set(&mut self) -> Result<BTreeSet<String>, SelectorError> {
        self.expect(Token::OpenSet, "`{`")?;
        let mut values = BTreeSet::new();
        while self.peek() != Token::CloseSet {
            values.insert(self.text()?);
            if !self.accept(Token::Comma) {
                break;
            }
        }
        self.expect(Token::CloseSet, "`,` or `}`")?;
        Ok(values)
    }

    fn text(&mut self) -> Result<String, SelectorError> {
        let Token::Text(text) = self.peek() else {
            return Err(self.expected("a string in quotes"));
        };
        self.position += 1;
        Ok(text.to_owned())
    }

    fn word(&mut self, expected: &'static str) -> Result<&'a str, SelectorError> {
        let Token::Word(word) = self.peek() else {
            return Err(self.expected(expected));
        };
        self.position += 1;
        Ok(word)
    }

    fn expect(&mut self, token: Token<'_>, expected: &'static str) -> Result<(), SelectorError> {
        if self.accept(token) {
            Ok(())
        } else {
            Err(self.expected(expected))
        }
    }

    fn accept(&mut self, token: Token<'_>) -> bool {
        let found = self.peek() == token;
        self.position += usize::from(found);
        found
    }

    fn here(&self) -> (usize, Token<'a>) {
        let last = self.tokens.len() - 1;
        self.tokens[self.position.min(last)]
    }

    fn peek(&self) -> Token<'a> {
        self.here().1
    }

    fn expected(&self, expected: &'static str) -> SelectorError {
        let found = self.peek().describe();
        self.fail(SelectorErrorKind::Expected { expected, found })
    }

    fn fail(&self, kind: SelectorErrorKind) -> SelectorError {
        SelectorError {
            column: self.here().0,
            kind,
        }
    }
}
