//! PHP code as a tree, as far as it matters here. Anything that is not understood becomes
//! [`Kind::Many`], with the parts that were.

/// An expression and the line on which it begins.
#[derive(Debug, Clone)]
pub(super) struct Expr {
    pub(super) line: u32,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone)]
pub(super) enum Kind {
    Text(String),
    Number(String),
    /// `$name`.
    Variable(String),
    /// A constant, or the name of a function or class.
    Name(String),
    /// `a[b]`, `a[]`.
    Index(Box<Expr>, Option<Box<Expr>>),
    /// `a->name`; an empty name for one that is computed.
    Member(Box<Expr>, String),
    /// `A::name`, `A::$name` (with the dollar).
    Static(Box<Expr>, String),
    Call(Box<Expr>, Vec<Expr>),
    New(String, Vec<Expr>),
    Array(Vec<(Option<Expr>, Expr)>),
    /// The sign is `=`, `.=` and so on.
    Assign(Box<Expr>, &'static str, Box<Expr>),
    Binary(&'static str, Box<Expr>, Box<Expr>),
    Not(Box<Expr>),
    /// `a ? b : c`, `a ?: c`, `a ?? c`.
    Choice(Box<Expr>, Option<Box<Expr>>, Box<Expr>),
    /// `(int) a`, with the type in small letters.
    Cast(String, Box<Expr>),
    Include(Box<Expr>),
    Exit(Option<Box<Expr>>),
    Closure(Box<Function>),
    /// Strings and variables in a row.
    Joined(Vec<Expr>),
    /// Anything else, and what is in it.
    Many(Vec<Expr>),
}

#[derive(Debug, Clone)]
pub(super) enum Stmt {
    Expr(Expr),
    Echo(Vec<Expr>),
    Html(u32),
    Return(Option<Expr>),
    /// `break`, on this line.
    Break(u32),
    If {
        test: Expr,
        then: Vec<Stmt>,
        otherwise: Vec<Stmt>,
    },
    /// `while`, `for` and, with its test behind the body, `do`.
    Loop {
        line: u32,
        before: Vec<Expr>,
        test: Vec<Expr>,
        body: Vec<Stmt>,
        after: Vec<Expr>,
    },
    Foreach {
        line: u32,
        subject: Expr,
        key: Option<Expr>,
        value: Expr,
        body: Vec<Stmt>,
    },
    Block(Vec<Stmt>),
    Function(Function),
    Class(Class),
    Const(String, Expr),
}

#[derive(Debug, Clone, Default)]
pub(super) struct Function {
    /// Empty for a closure.
    pub(super) name: String,
    pub(super) line: u32,
    /// Names with their defaults.
    pub(super) parameters: Vec<(String, Option<Expr>)>,
    pub(super) body: Vec<Stmt>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Class {
    pub(super) name: String,
    pub(super) parent: Option<String>,
    pub(super) constants: Vec<(String, Expr)>,
    /// Properties that have a value from the start.
    pub(super) properties: Vec<(String, Expr)>,
    pub(super) methods: Vec<Function>,
}

impl Expr {
    /// The variable's name, if it is one.
    pub(super) fn variable(&self) -> Option<&str> {
        match &self.kind {
            Kind::Variable(name) => Some(name),
            _ => None,
        }
    }
}
