//! The grammar's tree of a query → our [`Query`].

use std::ops::ControlFlow;

use sqlparser::ast::{
    Delete, Distinct, Expr, FromTable, FunctionArg, FunctionArgExpr, FunctionArguments,
    GroupByExpr, Ident, OnConflictAction, OnInsert, OrderBy, Query as AstQuery, Select, SelectItem,
    SelectItemQualifiedWildcardKind, SetExpr, Statement as Ast, TableFactor, TableObject, Update,
    UpdateTableFromKind, Visit, Visitor,
};

use super::assign::{assigned, changed, first_part, rows};
use super::constants::constant;
use super::cursor::Name;
use super::derived;
use super::from::{self, Visible};
use super::statement::{
    Call, ColumnRef, ColumnUse, Features, Insert, Level, Qualifier, Query, Source, TableRef,
    Target, Verb,
};

/// Reads the tree.
///
/// # Errors
/// What in it is not PostgreSQL, or not understood.
pub(super) fn query(ast: &Ast) -> Result<Query, String> {
    let verb = match ast {
        Ast::Query(query) => body_verb(&query.body),
        Ast::Insert(_) => Verb::Insert,
        Ast::Update(_) => Verb::Update,
        Ast::Delete(_) => Verb::Delete,
        Ast::Merge(_) => Verb::Merge,
        _ => return Err("a statement of another kind".to_owned()),
    };
    let mut walk = Walk::default();
    match ast.visit(&mut walk) {
        ControlFlow::Break(fault) => return Err(*fault),
        ControlFlow::Continue(()) => {}
    }
    derived::finish(&mut walk.levels, walk.features.window);
    Ok(Query {
        verb,
        levels: walk.levels,
        features: walk.features,
        functions: walk.functions,
        layout: None,
        update: None,
        conflict: None,
        merged: None,
        columns: walk.columns,
        shape: None,
    })
}

/// `WITH … INSERT` is a query whose body inserts.
fn body_verb(body: &SetExpr) -> Verb {
    match body {
        SetExpr::Insert(_) => Verb::Insert,
        SetExpr::Update(_) => Verb::Update,
        SetExpr::Delete(_) => Verb::Delete,
        _ => Verb::Select,
    }
}

#[derive(Default)]
struct Walk {
    levels: Vec<Level>,
    /// The levels around here, innermost last.
    open: Vec<usize>,
    scopes: Vec<Scope>,
    /// Inside of so many ORDER BY of whole queries, whose columns are not those of a level.
    orders: usize,
    features: Features,
    functions: Vec<Call>,
    columns: ColumnUse,
    /// The source of the MERGE that the statement is.
    merge_source: Option<*const TableFactor>,
}

/// A query's WITH.
#[derive(Default)]
struct Scope {
    visible: Vec<String>,
    /// Queries of WITH that become visible when they end, by address.
    pending: Vec<(*const AstQuery, String)>,
}

impl Visible for Vec<Scope> {
    fn is_cte(&self, name: &str) -> bool {
        self.iter().any(|scope| scope.visible.iter().any(|visible| visible == name))
    }
}

type Flow = ControlFlow<Box<String>>;

fn flow(result: Result<(), String>) -> Flow {
    match result {
        Ok(()) => ControlFlow::Continue(()),
        Err(fault) => ControlFlow::Break(Box::new(fault)),
    }
}

impl Visitor for Walk {
    type Break = Box<String>;

    fn pre_visit_query(&mut self, query: &AstQuery) -> Flow {
        flow(self.enter_query(query))
    }

    fn post_visit_query(&mut self, query: &AstQuery) -> Flow {
        self.scopes.pop();
        if let Some(scope) = self.scopes.last_mut() {
            let ended = |pending: &&(*const AstQuery, String)| std::ptr::eq(pending.0, query);
            if let Some((_, name)) = scope.pending.iter().find(ended) {
                scope.visible.push(name.clone());
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> Flow {
        flow(self.enter_select(select))
    }

    fn post_visit_select(&mut self, _select: &Select) -> Flow {
        if let Some(index) = self.open.pop() {
            self.levels[index].calls.end = self.functions.len();
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_statement(&mut self, statement: &Ast) -> Flow {
        flow(match statement {
            Ast::Query(_) => Ok(()),
            Ast::Insert(insert) => self.enter_insert(insert),
            Ast::Update(update) => self.enter_update(update),
            Ast::Delete(delete) => self.enter_delete(delete),
            Ast::Merge(merge) => self.enter_merge(merge),
            _ => Err("a statement of another kind".to_owned()),
        })
    }

    fn post_visit_statement(&mut self, statement: &Ast) -> Flow {
        if !matches!(statement, Ast::Query(_)) {
            self.open.pop();
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_order_by(&mut self, _order_by: &OrderBy) -> Flow {
        self.orders += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_order_by(&mut self, _order_by: &OrderBy) -> Flow {
        self.orders -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> Flow {
        match factor {
            TableFactor::Table { name, args: Some(args), .. } => flow(self.call(name, &args.args)),
            TableFactor::Function { name, args, .. } => flow(self.call(name, args)),
            TableFactor::Table { sample: Some(_), .. }
            | TableFactor::Derived { sample: Some(_), .. } => {
                self.features.sample = true;
                ControlFlow::Continue(())
            }
            _ => ControlFlow::Continue(()),
        }
    }

    fn post_visit_table_factor(&mut self, factor: &TableFactor) -> Flow {
        let end = (self.levels.len(), self.functions.len());
        if self.merge_source == Some(std::ptr::from_ref(factor))
            && let Some(Target::Merge(merge)) =
                self.levels.first_mut().and_then(|l| l.target.as_mut())
        {
            merge.source_end = end;
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> Flow {
        let function = match expr {
            Expr::Function(function) => function,
            Expr::Identifier(name) => {
                self.columns.names.insert(name.value.clone());
                self.column(std::slice::from_ref(name));
                return ControlFlow::Continue(());
            }
            Expr::CompoundIdentifier(parts) => {
                self.compound(parts);
                return ControlFlow::Continue(());
            }
            _ => return ControlFlow::Continue(()),
        };
        self.features.window |= function.over.is_some();
        let arguments = match &function.args {
            FunctionArguments::List(list) => list.args.as_slice(),
            FunctionArguments::None | FunctionArguments::Subquery(_) => &[],
        };
        flow(self.call(&function.name, arguments))
    }
}

impl Walk {
    /// A column's place.
    fn column(&mut self, parts: &[Ident]) {
        let (Some(first), Some((last, before))) = (parts.first(), parts.split_last()) else {
            return;
        };
        let name = |part: &Ident| part.value.clone();
        let (schema, table) = match before {
            [] => (None, None),
            [table] => (None, Some(name(table))),
            [.., schema, table] => (Some(name(schema)), Some(name(table))),
        };
        let span = from::bytes(first.span).start..from::bytes(last.span).end;
        self.columns.places.push((span, ColumnRef { schema, table, column: name(last) }));
    }

    /// `table.column`, `schema.table.column`
    fn compound(&mut self, parts: &[Ident]) {
        self.column(parts);
        if let Some(last) = parts.last() {
            self.columns.names.insert(last.value.clone());
        }
        if let [.., schema, table, _] = parts
            && let Some(first) = parts.first()
        {
            self.columns.qualifiers.push(Qualifier {
                schema: schema.value.clone(),
                table: table.value.clone(),
                before: from::bytes(first.span).start..from::bytes(table.span).start,
            });
        }
    }

    /// Opens a level inside of the one around it.
    fn push(&mut self, mut level: Level) {
        level.parent = self.open.last().copied().filter(|_| self.orders == 0);
        self.open.push(self.levels.len());
        self.levels.push(level);
    }

    fn call(
        &mut self,
        name: &sqlparser::ast::ObjectName,
        arguments: &[FunctionArg],
    ) -> Result<(), String> {
        let name = from::table_name(name)?;
        let argument = |argument: &FunctionArg| match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => constant(expr),
            _ => None,
        };
        let arguments = arguments.iter().map(argument).collect();
        let Name { name, schema, .. } = name;
        self.functions.push(Call { name, schema, arguments });
        Ok(())
    }

    fn enter_query(&mut self, query: &AstQuery) -> Result<(), String> {
        let odd = query.for_clause.is_some()
            || query.settings.is_some()
            || query.format_clause.is_some()
            || !query.pipe_operators.is_empty();
        if odd {
            return Err("a clause that PostgreSQL does not have".to_owned());
        }
        self.features.order |= query.order_by.is_some();
        self.features.limit |= query.limit_clause.is_some() || query.fetch.is_some();
        self.features.locking |= !query.locks.is_empty();
        let mut scope = Scope::default();
        if let Some(with) = &query.with {
            self.features.cte = true;
            for cte in &with.cte_tables {
                let name = cte.alias.name.value.clone();
                if with.recursive {
                    scope.visible.push(name);
                } else {
                    scope.pending.push((std::ptr::from_ref(&*cte.query), name));
                }
            }
        }
        self.scopes.push(scope);
        self.check_body(&query.body)
    }

    /// Set operations are no levels of their own.
    fn check_body(&mut self, body: &SetExpr) -> Result<(), String> {
        let mut open = vec![body];
        while let Some(body) = open.pop() {
            match body {
                SetExpr::SetOperation { left, right, .. } => {
                    self.features.set_operation = true;
                    open.extend([&**left, &**right]);
                }
                SetExpr::Table(_) | SetExpr::Merge(_) => {
                    return Err("TABLE or MERGE inside of a query".to_owned());
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn enter_select(&mut self, select: &Select) -> Result<(), String> {
        let odd = select.top.is_some()
            || select.select_modifiers.is_some()
            || select.exclude.is_some()
            || select.prewhere.is_some()
            || select.qualify.is_some()
            || select.value_table_mode.is_some()
            || !select.lateral_views.is_empty()
            || !select.connect_by.is_empty()
            || !select.cluster_by.is_empty()
            || !select.distribute_by.is_empty()
            || !select.sort_by.is_empty();
        if odd {
            return Err("a clause that PostgreSQL does not have".to_owned());
        }
        let distinct = matches!(&select.distinct, Some(Distinct::Distinct | Distinct::On(_)));
        let group = select.having.is_some()
            || !matches!(&select.group_by, GroupByExpr::Expressions(by, with)
                if by.is_empty() && with.is_empty());
        self.features.distinct |= distinct;
        self.features.group |= group;
        self.features.window |= !select.named_window.is_empty();
        if let Some(into) = &select.into {
            self.features.into = true;
            self.features.into_temp |= into.temporary;
        }
        self.check_projection(select);
        let calls = self.functions.len()..self.functions.len();
        let mut level = Level { groups: group || distinct, calls, ..Level::default() };
        derived::link(&mut self.levels, select);
        for table in &select.from {
            from::read(table, &mut level, &self.scopes)?;
        }
        from::filter(select.selection.as_ref(), &mut level);
        self.push(level);
        Ok(())
    }

    /// Aliases of the columns, and `schema.table.*` among them.
    fn check_projection(&mut self, select: &Select) {
        let alias = |item: &SelectItem| match item {
            SelectItem::ExprWithAlias { alias, .. } => {
                Some((alias.value.clone(), from::bytes(alias.span)))
            }
            _ => None,
        };
        if self.levels.is_empty() {
            self.columns.aliases = select.projection.iter().map(alias).collect();
        }
        for item in &select.projection {
            if let SelectItem::QualifiedWildcard(
                SelectItemQualifiedWildcardKind::ObjectName(name),
                _,
            ) = item
                && let [.., schema, table] = name.0.as_slice()
                && let (Some(schema), Some(table)) = (schema.as_ident(), table.as_ident())
                && let Some(first) = name.0.first().and_then(|part| part.as_ident())
            {
                self.columns.qualifiers.push(Qualifier {
                    schema: schema.value.clone(),
                    table: table.value.clone(),
                    before: from::bytes(first.span).start..from::bytes(table.span).start,
                });
            }
        }
    }

    fn enter_insert(&mut self, insert: &sqlparser::ast::Insert) -> Result<(), String> {
        let odd = insert.or.is_some()
            || insert.ignore
            || insert.overwrite
            || insert.partitioned.is_some()
            || insert.replace_into
            || insert.has_table_keyword
            || insert.insert_alias.is_some()
            || insert.settings.is_some()
            || insert.format_clause.is_some()
            || insert.multi_table_insert_type.is_some()
            || !insert.assignments.is_empty()
            || !insert.after_columns.is_empty();
        let TableObject::TableName(name) = &insert.table else {
            return Err("INSERT into something that is not a table".to_owned());
        };
        if odd {
            return Err("a clause that PostgreSQL does not have".to_owned());
        }
        let mut columns = Vec::new();
        for column in &insert.columns {
            columns.push(first_part(column)?);
        }
        let updates = match &insert.on {
            Some(OnInsert::OnConflict(conflict)) => match &conflict.action {
                OnConflictAction::DoUpdate(update) => changed(&update.assignments)?,
                OnConflictAction::DoNothing => Vec::new(),
            },
            Some(_) => return Err("a clause that PostgreSQL does not have".to_owned()),
            None => Vec::new(),
        };
        let name = from::table_name(name)?;
        let alias = insert.table_alias.as_ref().map(|alias| alias.alias.value.clone());
        let table = TableRef {
            alias: alias.or_else(|| Some(name.name.clone())),
            source: Source::Table(name),
            renamed: false,
            aliased: insert.table_alias.is_some(),
        };
        let target = Target::Insert(Insert {
            columns: (!columns.is_empty()).then_some(columns),
            rows: insert.source.as_deref().and_then(rows),
            updates,
        });
        self.push(Level { tables: vec![table], target: Some(target), ..Level::default() });
        Ok(())
    }

    fn enter_update(&mut self, update: &Update) -> Result<(), String> {
        let odd = update.or.is_some()
            || update.limit.is_some()
            || !update.order_by.is_empty()
            || !update.table.joins.is_empty();
        let others = match &update.from {
            None => [].as_slice(),
            Some(UpdateTableFromKind::AfterSet(tables)) if !odd => tables,
            _ => return Err("a clause that PostgreSQL does not have".to_owned()),
        };
        if odd {
            return Err("a clause that PostgreSQL does not have".to_owned());
        }
        let columns = assigned(&update.assignments)?;
        let mut level = Level { target: Some(Target::Update { columns }), ..Level::default() };
        from::read(&update.table, &mut level, &NoCte)?;
        for table in others {
            from::read(table, &mut level, &self.scopes)?;
        }
        from::filter(update.selection.as_ref(), &mut level);
        self.push(level);
        Ok(())
    }

    fn enter_merge(&mut self, merge: &sqlparser::ast::Merge) -> Result<(), String> {
        self.merge_source = Some(std::ptr::from_ref(&merge.source));
        let level = super::merge::level(merge, &NoCte)?;
        self.push(level);
        Ok(())
    }

    fn enter_delete(&mut self, delete: &Delete) -> Result<(), String> {
        let FromTable::WithFromKeyword(target) = &delete.from else {
            return Err("DELETE without FROM".to_owned());
        };
        let [target] = target.as_slice() else {
            return Err("DELETE from several tables".to_owned());
        };
        let odd = !delete.tables.is_empty()
            || delete.limit.is_some()
            || !delete.order_by.is_empty()
            || !target.joins.is_empty();
        if odd {
            return Err("a clause that PostgreSQL does not have".to_owned());
        }
        let mut level = Level { target: Some(Target::Delete), ..Level::default() };
        from::read(target, &mut level, &NoCte)?;
        for table in delete.using.iter().flatten() {
            from::read(table, &mut level, &self.scopes)?;
        }
        from::filter(delete.selection.as_ref(), &mut level);
        self.push(level);
        Ok(())
    }
}

/// The target of a write is never a WITH query.
struct NoCte;

impl Visible for NoCte {
    fn is_cte(&self, _name: &str) -> bool {
        false
    }
}
