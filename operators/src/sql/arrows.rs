//! Makes JSON arrows bind as tightly as in PostgreSQL.
//!
//! The parser's generic dialect lets `->` and `->>` bind more loosely than comparisons: it reads
//! `body->>'gate' = 'A1'` as `body->>('gate' = 'A1')`, which nobody means. Parentheses stay in the tree, so that
//! such an expression can be told from one that was meant, and turned.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, Value, VisitMut, VisitorMut};
use datafusion::sql::sqlparser::tokenizer::Span;

/// Turns the arrows of a query or statement, so that batch queries may mean the same as streaming ones.
pub fn bind_arrows(tree: &mut impl VisitMut) {
    let _ = tree.visit(&mut Bind);
}

struct Bind;

impl VisitorMut for Bind {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let Expr::BinaryOp { left, op, right } = expr else { return ControlFlow::Continue(()) };
        if !is_arrow(op) {
            return ControlFlow::Continue(());
        }
        let op = op.clone();
        // `a = body -> key OP c` becomes `a = ((body -> key) OP c)`: first the right operand gives up its left end, …
        let key = swap(left_end(right), null());
        // … then the left operand its right end, which the arrow takes from.
        let mut outer = swap(left, null());
        let value = swap(right_end(&mut outer), null());
        let arrow = Expr::BinaryOp { left: Box::new(value), op, right: Box::new(key) };
        let mut inner = swap(right, null());
        *left_end(&mut inner) = arrow;
        *right_end(&mut outer) = inner;
        *expr = outer;
        ControlFlow::Continue(())
    }
}

fn swap(place: &mut Expr, with: Expr) -> Expr {
    std::mem::replace(place, with)
}

fn null() -> Expr {
    Expr::Value(Value::Null.with_span(Span::empty()))
}

fn is_arrow(op: &BinaryOperator) -> bool {
    use BinaryOperator::{Arrow, HashArrow, HashLongArrow, LongArrow};
    matches!(op, Arrow | LongArrow | HashArrow | HashLongArrow)
}

fn is_arrow_of(expr: &Expr) -> bool {
    matches!(expr, Expr::BinaryOp { op, .. } if is_arrow(op))
}

/// The operand at the left end of an expression of loose operators.
fn left_end(expr: &mut Expr) -> &mut Expr {
    if is_arrow_of(expr) {
        return expr;
    }
    match expr {
        Expr::BinaryOp { left, .. } => left_end(left),
        Expr::IsNull(inner)
        | Expr::IsNotNull(inner)
        | Expr::IsTrue(inner)
        | Expr::IsNotTrue(inner)
        | Expr::IsFalse(inner)
        | Expr::IsNotFalse(inner)
        | Expr::IsDistinctFrom(inner, _)
        | Expr::IsNotDistinctFrom(inner, _)
        | Expr::Like { expr: inner, .. }
        | Expr::ILike { expr: inner, .. }
        | Expr::SimilarTo { expr: inner, .. }
        | Expr::InList { expr: inner, .. }
        | Expr::InSubquery { expr: inner, .. }
        | Expr::Between { expr: inner, .. } => left_end(inner),
        other => other,
    }
}

/// The operand at the right end of an expression of loose operators.
fn right_end(expr: &mut Expr) -> &mut Expr {
    if is_arrow_of(expr) {
        return expr;
    }
    match expr {
        Expr::BinaryOp { right, .. } => right_end(right),
        Expr::IsDistinctFrom(_, inner) | Expr::IsNotDistinctFrom(_, inner) => right_end(inner),
        other => other,
    }
}
