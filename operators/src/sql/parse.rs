//! From the text of a query to its syntax tree, with the place of every token.

use datafusion::sql::sqlparser::ast::{Query, Statement};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan, Tokenizer};

use super::arrows::bind_arrows;
use super::error::{Place, SqlError};

/// How deep expressions and queries may nest.
const MAX_DEPTH: usize = 128;

/// A query and its tokens.
pub(super) struct Parsed {
    pub(super) query: Box<Query>,
    pub(super) tokens: Tokens,
}

/// The tokens of a text, without white space and comments.
pub(super) struct Tokens(Vec<TokenWithSpan>);

impl Tokens {
    fn of(sql: &str) -> Result<Self, SqlError> {
        let tokens = Tokenizer::new(&GenericDialect, sql).tokenize_with_location().map_err(|e| {
            let span = Span { start: e.location, end: e.location };
            Place::of(span).unwrap_or(Place::START).error(lowercase_first(&e.message), None)
        })?;
        Ok(Self(tokens.into_iter().filter(|t| !matches!(t.token, Token::Whitespace(_))).collect()))
    }

    /// Where the text begins.
    pub(super) fn first(&self) -> Place {
        self.0.first().and_then(|t| Place::of(t.span)).unwrap_or(Place::START)
    }

    /// The last of these keywords before a location.
    pub(super) fn keyword_before(&self, location: Location, keywords: &[Keyword]) -> Option<Place> {
        let end = self.0.partition_point(|t| t.span.start < location);
        self.0.get(..end)?.iter().rev().find(|t| is_keyword(t, keywords)).and_then(|t| Place::of(t.span))
    }

    /// The first of these keywords at or after a location.
    pub(super) fn keyword_after(&self, location: Location, keywords: &[Keyword]) -> Option<Place> {
        let start = self.0.partition_point(|t| t.span.start < location);
        self.0.get(start..)?.iter().find(|t| is_keyword(t, keywords)).and_then(|t| Place::of(t.span))
    }

    /// The last of these keywords in the text.
    pub(super) fn last_keyword(&self, keywords: &[Keyword]) -> Option<Place> {
        self.0.iter().rev().find(|t| is_keyword(t, keywords)).and_then(|t| Place::of(t.span))
    }

    /// The token at a location, or the end of the text.
    fn at(&self, location: Location) -> Option<Place> {
        let found = self.0.iter().find(|t| t.span.start == location).and_then(|t| Place::of(t.span));
        found.or_else(|| Place::of(Span { start: location, end: location }))
    }

    /// The first token of a second statement.
    fn second_statement(&self) -> Option<Place> {
        let mut tokens = self.0.iter().skip_while(|t| t.token == Token::SemiColon);
        tokens.find(|t| t.token == Token::SemiColon)?;
        tokens.find(|t| t.token != Token::SemiColon).and_then(|t| Place::of(t.span))
    }
}

fn is_keyword(token: &TokenWithSpan, keywords: &[Keyword]) -> bool {
    matches!(&token.token, Token::Word(word) if word.quote_style.is_none() && keywords.contains(&word.keyword))
}

/// Parses exactly one query.
pub(super) fn parse(sql: &str) -> Result<Parsed, SqlError> {
    let tokens = Tokens::of(sql)?;
    if tokens.0.iter().all(|t| t.token == Token::SemiColon) {
        return Err(Place::START.error("the query is empty", Some("write `SELECT … FROM <input>`".to_owned())));
    }
    let mut statements = Parser::new(&GenericDialect)
        .with_recursion_limit(MAX_DEPTH)
        .with_tokens_with_locations(tokens.0.clone())
        .parse_statements()
        .map_err(|e| syntax_error(&e, &tokens))?;
    if statements.len() > 1 {
        let place = tokens.second_statement().unwrap_or(Place::START);
        return Err(place.error(
            "an operator is one query, and here begins a second statement",
            Some("make it an operator of its own".to_owned()),
        ));
    }
    match statements.pop() {
        Some(Statement::Query(mut query)) => {
            bind_arrows(query.as_mut());
            Ok(Parsed { query, tokens })
        }
        _ => Err(tokens.first().error(
            "only a SELECT query can be an operator",
            Some("write `SELECT … FROM <input>`; sources and sinks are declared in the pipeline".to_owned()),
        )),
    }
}

fn syntax_error(error: &ParserError, tokens: &Tokens) -> SqlError {
    let text = match error {
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => text,
        ParserError::RecursionLimitExceeded => {
            return Place::START.error(
                format!("the query nests deeper than {MAX_DEPTH} levels"),
                Some("split it into several operators".to_owned()),
            );
        }
    };
    let (message, location) = split_location(text);
    let place = location.and_then(|l| tokens.at(l)).or_else(|| {
        let last = tokens.0.last()?;
        Place::of(Span { start: last.span.end, end: last.span.end })
    });
    place.unwrap_or(Place::START).error(format!("syntax error: {}", lowercase_first(message)), None)
}

/// Splits `message at Line: 1, Column: 7`, as the parser writes it.
fn split_location(text: &str) -> (&str, Option<Location>) {
    let split = || {
        let (message, rest) = text.rsplit_once(" at Line: ")?;
        let (line, column) = rest.split_once(", Column: ")?;
        Some((message, Location { line: line.trim().parse().ok()?, column: column.trim().parse().ok()? }))
    };
    match split() {
        Some((message, location)) => (message, Some(location)),
        None => (text, None),
    }
}

/// What went wrong with a value, without the kind of error that Arrow puts before it.
pub(super) fn without_kind(message: &str) -> &str {
    let kinds = [
        "Arrow error: ",
        "Execution error: ",
        "Cast error: ",
        "Parser error: ",
        "Compute error: ",
        "Arithmetic overflow: ",
        "Invalid argument error: ",
    ];
    kinds.iter().fold(message, |message, kind| message.strip_prefix(kind).unwrap_or(message))
}

/// Messages begin in lowercase, unless they begin with an acronym.
pub(super) fn lowercase_first(message: &str) -> String {
    let mut chars = message.chars();
    match (chars.next(), chars.next()) {
        (Some(first), Some(second)) if first.is_uppercase() && !second.is_uppercase() => {
            first.to_lowercase().chain(message.chars().skip(1)).collect()
        }
        _ => message.to_owned(),
    }
}
