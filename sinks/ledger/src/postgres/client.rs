//! A connection to a server, as blocking calls.
//!
//! Sockets are served by one I/O thread per opened state, so that one may read and write from any thread, inside a runtime or not,
//! and the server works on one statement while the next is put together. Statements whose answer nobody needs are sent without
//! waiting for those before them, because the way to a server and back is what costs; their answers are read, in order, before
//! the next answer that is needed and before the commit. So a refused one always fails its transaction.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures::TryStreamExt;
use futures::executor::block_on;
use futures::future::try_join_all;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, IsolationLevel, Row, Statement, Transaction};

use super::array::Parameter;
use super::dialect::translate;
use super::tls::Route;
use crate::error::TransactionError;
use crate::value::Value;

/// Rows fetched at a time where there may be many.
const ROWS: i32 = 1_000;
/// Statements sent ahead of their answers, at most.
const AHEAD_MAX: usize = 256;

/// The I/O thread of a state's connections.
#[derive(Debug)]
pub(crate) struct Wire(Option<Runtime>);

impl Wire {
    pub fn new() -> std::io::Result<Self> {
        let mut threads = Builder::new_multi_thread();
        let runtime = threads.worker_threads(1).thread_name("faceflow-postgres").enable_all().build()?;
        Ok(Self(Some(runtime)))
    }

    /// Carries out `work` on the I/O thread, where timers run.
    pub fn run<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        let runtime = self.0.as_ref().expect("it is there until it is dropped");
        block_on(runtime.spawn(work)).expect("nothing panics on the I/O thread")
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // Waits for nothing, so that it may happen inside another runtime.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// A connection with its prepared statements.
pub(crate) struct Client {
    client: tokio_postgres::Client,
    statements: RefCell<HashMap<String, Statement>>,
    #[allow(dead_code, reason = "lives as long as its connections")]
    wire: Arc<Wire>,
}

impl Client {
    /// Connects; the I/O thread serves it.
    pub fn connect(wire: &Arc<Wire>, route: &Route) -> Result<Self, TransactionError> {
        let route = route.clone();
        let client = wire.run(async move { open(&route).await })?;
        Ok(Self { client, statements: RefCell::default(), wire: Arc::clone(wire) })
    }

    /// Runs statements without values, separated by semicolons.
    pub fn batch(&self, sql: &str) -> Result<(), Error> {
        block_on(self.client.batch_execute(sql))
    }

    /// Reads in one transaction, which sees what was there when it began.
    pub fn read<T>(
        &mut self,
        work: impl FnOnce(Rc<Pipeline<'_>>) -> Result<T, TransactionError>,
    ) -> Result<T, TransactionError> {
        let begin = self.client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true);
        let transaction = block_on(begin.start())?;
        let read = work(Rc::new(Pipeline::new(&transaction, &self.statements)));
        finish(transaction, read)
    }

    /// Writes in one transaction, which is rolled back if `work` fails.
    pub fn write<T>(
        &mut self,
        work: impl FnOnce(Rc<Pipeline<'_>>) -> Result<T, TransactionError>,
    ) -> Result<T, TransactionError> {
        let transaction = block_on(self.client.transaction())?;
        let pipeline = Rc::new(Pipeline::new(&transaction, &self.statements));
        let mut written = work(Rc::clone(&pipeline));
        if written.is_ok()
            && let Err(error) = pipeline.catch_up()
        {
            written = Err(error);
        }
        drop(pipeline);
        finish(transaction, written)
    }
}

/// Ends a transaction before anything else happens: until then others may wait for what it has locked.
fn finish<T>(transaction: Transaction<'_>, done: Result<T, TransactionError>) -> Result<T, TransactionError> {
    match done {
        Ok(done) => {
            block_on(transaction.commit())?;
            Ok(done)
        }
        Err(error) => {
            // Why it failed matters more than whether this does: a connection that is gone rolls back too.
            drop(block_on(transaction.rollback()));
            Err(error)
        }
    }
}

/// Opens a connection that is served by the runtime this is called in.
#[allow(clippy::disallowed_methods, reason = "the task is the socket's other end, not work of the graph")]
pub(super) async fn open(route: &Route) -> Result<tokio_postgres::Client, TransactionError> {
    let late = |_| {
        let limit_ms = route.limit.as_millis();
        TransactionError::Lost(format!(
            "the server said nothing for {limit_ms} ms (ledger.connect_timeout_ms); see that it is well"
        ))
    };
    let connecting = timeout(route.limit, route.config.connect(route.tls.clone()));
    let (client, connection) = connecting.await.map_err(late)??;
    // Why it ended is said to whoever asks next.
    tokio::spawn(async move { drop(connection.await) });
    Ok(client)
}

/// A statement in the words of the server, with what it takes.
pub(crate) struct Question<'q> {
    pub sql: &'q str,
    pub parameters: Vec<Parameter>,
}

type Sent<'c> = Pin<Box<dyn Future<Output = Result<u64, Error>> + 'c>>;

/// An open transaction.
pub struct Pipeline<'c> {
    transaction: &'c Transaction<'c>,
    statements: &'c RefCell<HashMap<String, Statement>>,
    /// Statements that were sent and not answered yet, in order.
    sent: RefCell<VecDeque<Sent<'c>>>,
}

impl<'c> Pipeline<'c> {
    fn new(transaction: &'c Transaction<'c>, statements: &'c RefCell<HashMap<String, Statement>>) -> Self {
        Self { transaction, statements, sent: RefCell::default() }
    }

    pub fn run(&self, sql: &str, values: &[Value<'_>]) -> Result<(), TransactionError> {
        let parameters = values.iter().map(|value| Parameter::from(*value)).collect();
        self.send(&translate(sql), parameters)
    }

    /// Sends a statement in the words of the server. It need not have answered yet; what it refuses is known before the commit.
    pub(crate) fn send(&self, sql: &str, parameters: Vec<Parameter>) -> Result<(), TransactionError> {
        if self.sent.borrow().len() >= AHEAD_MAX {
            self.catch_up()?;
        }
        let (statement, transaction) = (self.prepared(sql)?, self.transaction);
        let mut sent: Sent<'c> = Box::pin(async move { transaction.execute_raw(&statement, parameters).await });
        // The first poll sends it; whoever waits next asks for the answer.
        match sent.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answer) => answer.map(drop).map_err(|error| self.first_error(error)),
            Poll::Pending => {
                self.sent.borrow_mut().push_back(sent);
                Ok(())
            }
        }
    }

    pub fn change(&self, sql: &str, values: &[Value<'_>]) -> Result<u64, TransactionError> {
        let statement = self.statement(sql)?;
        self.wait(self.transaction.execute_raw(&statement, values))
    }

    pub fn insert(&self, sql: &str, values: &[Value<'_>]) -> Result<i64, TransactionError> {
        let row = self.one(&format!("{sql} RETURNING id"), values)?;
        let row = row.ok_or_else(|| TransactionError::Damaged("a row was inserted and has no id".to_owned()))?;
        Ok(row.try_get(0)?)
    }

    pub fn one(&self, sql: &str, values: &[Value<'_>]) -> Result<Option<Row>, TransactionError> {
        let statement = self.statement(sql)?;
        self.wait(self.transaction.query_opt(&statement, &refs(values)))
    }

    pub fn all(&self, sql: &str, values: &[Value<'_>]) -> Result<Vec<Row>, TransactionError> {
        let statement = self.statement(sql)?;
        self.wait(self.transaction.query(&statement, &refs(values)))
    }

    pub fn each(
        &self,
        sql: &str,
        values: &[Value<'_>],
        each: &mut dyn FnMut(&Row) -> Result<(), TransactionError>,
    ) -> Result<(), TransactionError> {
        let statement = self.statement(sql)?;
        let portal = self.wait(self.transaction.bind(&statement, &refs(values)))?;
        loop {
            let rows = self.wait(self.transaction.query_portal(&portal, ROWS))?;
            rows.iter().try_for_each(&mut *each)?;
            if rows.len() < ROWS as usize {
                return Ok(());
            }
        }
    }

    /// Runs statements without values, separated by semicolons.
    pub fn batch(&self, sql: &str) -> Result<(), TransactionError> {
        self.wait(self.transaction.batch_execute(sql))
    }

    /// Waits for the answers to everything sent.
    pub fn catch_up(&self) -> Result<(), TransactionError> {
        let mut sent = self.sent.borrow_mut();
        while let Some(next) = sent.pop_front() {
            block_on(next)?;
        }
        Ok(())
    }

    /// Asks several questions in the words of the server on one way there and back; the rows of each answer.
    pub(crate) fn ask(&self, questions: Vec<Question<'_>>) -> Result<Vec<Vec<Row>>, TransactionError> {
        let prepare = |question: Question<'_>| Ok((self.prepared(question.sql)?, question.parameters));
        let prepared = questions.into_iter().map(prepare).collect::<Result<Vec<_>, TransactionError>>()?;
        let transaction = self.transaction;
        let answers = prepared.into_iter().map(|(statement, parameters)| async move {
            transaction.query_raw(&statement, parameters).await?.try_collect::<Vec<Row>>().await
        });
        self.wait(try_join_all(answers))
    }

    fn statement(&self, sql: &str) -> Result<Statement, TransactionError> {
        self.prepared(&translate(sql))
    }

    fn prepared(&self, sql: &str) -> Result<Statement, TransactionError> {
        if let Some(statement) = self.statements.borrow().get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.wait(self.transaction.prepare(sql))?;
        self.statements.borrow_mut().insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }

    /// Waits for an answer, reading those before it as they come.
    fn wait<T>(&self, answer: impl Future<Output = Result<T, Error>>) -> Result<T, TransactionError> {
        let mut sent = self.sent.borrow_mut();
        let mut answer = pin!(answer);
        let waited: Result<Result<T, Error>, TransactionError> = block_on(poll_fn(|context| {
            while let Some(next) = sent.front_mut() {
                match next.as_mut().poll(context) {
                    Poll::Pending => break,
                    Poll::Ready(answer) => {
                        sent.pop_front();
                        if let Err(first) = answer {
                            return Poll::Ready(Err(first.into()));
                        }
                    }
                }
            }
            answer.as_mut().poll(context).map(Ok)
        }));
        drop(sent);
        waited?.map_err(|error| self.first_error(error))
    }

    /// The first error of the transaction: what was sent before may have failed and its answer not been read yet, and then a later
    /// statement only says that the transaction is aborted.
    fn first_error(&self, later: Error) -> TransactionError {
        self.catch_up().err().unwrap_or_else(|| later.into())
    }
}

fn refs<'v>(values: &'v [Value<'_>]) -> Vec<&'v (dyn ToSql + Sync)> {
    values.iter().map(|value| value as &(dyn ToSql + Sync)).collect()
}
