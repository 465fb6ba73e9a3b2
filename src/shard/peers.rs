//! How one core asks another: letters, handed over in batches.
//!
//! A letter is work that is carried out on the core that owns the shard; its answer is a letter back. A core drains its
//! mailbox whenever it wakes, so under load many letters cost one wake-up. Questions wait in a bounded queue, and whoever
//! finds it full waits and reads no further requests; answers are bounded by the questions.

use super::Shard;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use tokio::sync::{mpsc, oneshot};

/// Letters taken out of a mailbox at once.
const LETTERS_PER_TURN: usize = 256;

type Letter = Box<dyn FnOnce(&Rc<Shards>) + Send>;

/// Work that runs on the core that owns a shard.
pub type Work<R> = Pin<Box<dyn Future<Output = R>>>;

/// Where letters to one core are put.
#[derive(Clone)]
pub struct Address {
    questions: mpsc::Sender<Letter>,
    answers: mpsc::UnboundedSender<Letter>,
}

/// Where a core finds its letters.
pub struct Mailbox {
    questions: mpsc::Receiver<Letter>,
    answers: mpsc::UnboundedReceiver<Letter>,
}

/// A mailbox in which at most `questions` wait.
#[must_use]
pub fn mailbox(questions: usize) -> (Address, Mailbox) {
    let (question_sender, question_receiver) = mpsc::channel(questions);
    let (answer_sender, answer_receiver) = mpsc::unbounded_channel();
    let address = Address { questions: question_sender, answers: answer_sender };
    (address, Mailbox { questions: question_receiver, answers: answer_receiver })
}

/// All shards as one core sees them.
pub struct Shards {
    core: usize,
    /// By number; only those of this core.
    local: Vec<Option<Rc<Shard>>>,
    /// Core of each shard.
    owners: Vec<usize>,
    cores: Vec<Address>,
}

impl Shards {
    /// The shards as `core` sees them: its own, and how to reach the others.
    #[must_use]
    pub fn new(core: usize, local: Vec<Rc<Shard>>, owners: Vec<usize>, cores: Vec<Address>) -> Rc<Self> {
        let mut by_number: Vec<Option<Rc<Shard>>> = vec![None; owners.len()];
        for shard in local {
            let place = shard.number as usize;
            by_number[place] = Some(shard);
        }
        Rc::new(Self { core, local: by_number, owners, cores })
    }

    /// The shard, if it is served by this core.
    #[must_use]
    pub fn local(&self, shard: u16) -> Option<&Rc<Shard>> {
        self.local[shard as usize].as_ref()
    }

    /// The shards served by this core.
    pub fn locals(&self) -> impl Iterator<Item = &Rc<Shard>> {
        self.local.iter().flatten()
    }

    /// Number of shards.
    #[must_use]
    pub fn count(&self) -> usize {
        self.owners.len()
    }

    /// Runs `work` on the core that owns `shard`, and waits for its result. The work is done even if nobody waits any more.
    ///
    /// # Panics
    /// When the other core is gone, which only happens when the process ends.
    pub async fn on<R: Send + 'static>(
        &self,
        shard: u16,
        work: impl FnOnce(Rc<Shard>) -> Work<R> + Send + 'static,
    ) -> R {
        self.send(shard, work, false).await
    }

    /// Like [`on`](Self::on), for work that changes nothing: it stops when nobody waits for its result.
    ///
    /// # Panics
    /// As for [`on`](Self::on).
    pub async fn ask<R: Send + 'static>(
        &self,
        shard: u16,
        work: impl FnOnce(Rc<Shard>) -> Work<R> + Send + 'static,
    ) -> R {
        self.send(shard, work, true).await
    }

    async fn send<R: Send + 'static>(
        &self,
        shard: u16,
        work: impl FnOnce(Rc<Shard>) -> Work<R> + Send + 'static,
        stoppable: bool,
    ) -> R {
        match self.local(shard) {
            Some(local) => work(Rc::clone(local)).await,
            None => self.post(shard, work, stoppable).await.await.expect("the other core answers every letter"),
        }
    }

    /// Posts work for another core, waiting only for room in its mailbox; the result comes later. Letters of one sender
    /// are begun in the order they were posted.
    ///
    /// # Panics
    /// As for [`on`](Self::on).
    pub async fn post<R: Send + 'static>(
        &self,
        shard: u16,
        work: impl FnOnce(Rc<Shard>) -> Work<R> + Send + 'static,
        stoppable: bool,
    ) -> oneshot::Receiver<R> {
        let (mut done, result) = oneshot::channel();
        let home = self.core;
        let letter: Letter = Box::new(move |there| {
            let work = work(Rc::clone(there.local(shard).expect("letters go to the shard's owner")));
            let there = Rc::clone(there);
            tokio_uring::spawn(async move {
                let result = tokio::select! {
                    result = work => result,
                    () = done.closed(), if stoppable => return,
                };
                // The oneshot completes on the core that waits, so that core is woken once for many answers.
                let answer: Letter = Box::new(move |_| drop(done.send(result)));
                let _ = there.cores[home].answers.send(answer);
            });
        });
        let address = &self.cores[self.owners[shard as usize]];
        assert!(address.questions.send(letter).await.is_ok(), "the other core has ended");
        result
    }

    /// Carries out the letters that come in, for ever.
    pub async fn read_letters(self: Rc<Self>, mailbox: Mailbox) {
        let Mailbox { mut questions, mut answers } = mailbox;
        let this = Rc::clone(&self);
        tokio_uring::spawn(async move {
            let mut letters = Vec::with_capacity(LETTERS_PER_TURN);
            while answers.recv_many(&mut letters, LETTERS_PER_TURN).await > 0 {
                letters.drain(..).for_each(|letter| letter(&this));
            }
        });
        let mut letters = Vec::with_capacity(LETTERS_PER_TURN);
        while questions.recv_many(&mut letters, LETTERS_PER_TURN).await > 0 {
            letters.drain(..).for_each(|letter| letter(&self));
        }
    }
}
