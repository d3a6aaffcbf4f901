//! What lending does, step by step, in every order that a lender and its borrowers can take: nobody calls work that is
//! over, nobody waits for ever. The steps are those of `lend.rs`, each an access to what is shared, one after the other
//! as its `SeqCst` operations are; spinning is left out. They are written anew here: nothing but the reader ties them to
//! the code.

use std::collections::HashSet;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    shared: Shared,
    lender: Lender,
    borrowers: Vec<(Borrower, u8)>,
}

/// The word that is exchanged as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Word {
    ended: bool,
    open: bool,
    at_work: u8,
    piece: u8,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Shared {
    word: Word,
    awake: u8,
    asleep: u8,
    locked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Lender {
    Open,
    LookForSleepers,
    Lock,
    Notify,
    Close,
    AwaitWork,
    End,
    LockAtEnd,
    NotifyAtEnd,
    AwaitLeave,
    Gone,
}

/// Behind each: the piece that was seen last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Borrower {
    Join,
    Look,
    Enter(Word),
    Work,
    Leave,
    GoToSleep(Word),
    Lock(Word),
    CountAsleep(Word),
    LookForNews(Word),
    Settle(Word),
    Waits(Word),
    Relock(Word),
    Wake,
    Part,
    Gone,
}

impl State {
    /// After a step of the lender, or none where it waits.
    fn lent(&self, pieces: u8) -> Option<Self> {
        let mut next = self.clone();
        let Shared { word, awake, asleep, locked } = &mut next.shared;
        next.lender = match self.lender {
            Lender::Open => {
                assert!(!word.open && word.at_work == 0, "nobody reads what is written");
                *word = Word { open: true, piece: word.piece + 1, ..*word };
                Lender::LookForSleepers
            }
            Lender::LookForSleepers if *asleep > 0 => Lender::Lock,
            Lender::LookForSleepers => Lender::Close,
            Lender::Lock | Lender::LockAtEnd if *locked => return None,
            Lender::Lock => Lender::Notify,
            Lender::LockAtEnd => Lender::NotifyAtEnd,
            Lender::Notify | Lender::NotifyAtEnd => {
                for (borrower, _) in &mut next.borrowers {
                    if let Borrower::Waits(seen) = *borrower {
                        *borrower = Borrower::Relock(seen);
                    }
                }
                if self.lender == Lender::Notify { Lender::Close } else { Lender::AwaitLeave }
            }
            Lender::Close => {
                let sleeps = |(borrower, _): &(Borrower, u8)| matches!(borrower, Borrower::Waits(last) if last.piece != word.piece);
                assert!(!self.borrowers.iter().any(sleeps), "whoever sleeps has been woken");
                word.open = false;
                Lender::AwaitWork
            }
            Lender::AwaitWork if word.at_work > 0 => return None,
            Lender::AwaitWork if word.piece < pieces => Lender::Open,
            Lender::AwaitWork => Lender::End,
            Lender::End => {
                word.ended = true;
                Lender::LockAtEnd
            }
            Lender::AwaitLeave if *awake > 0 => return None,
            Lender::AwaitLeave => Lender::Gone,
            Lender::Gone => return None,
        };
        Some(next)
    }

    /// After a step of a borrower, or none where it waits.
    fn borrowed(&self, at: usize) -> Option<Self> {
        let mut next = self.clone();
        let Shared { word, awake, asleep, locked } = &mut next.shared;
        let (borrower, seen) = &mut next.borrowers[at];
        let is_news = |word: Word, seen: u8| word.ended || word.open && word.piece != seen;
        *borrower = match *borrower {
            Borrower::Join => {
                *awake += 1;
                Borrower::Look
            }
            Borrower::Look if word.ended => Borrower::Part,
            Borrower::Look if is_news(*word, *seen) => Borrower::Enter(*word),
            Borrower::Look => Borrower::GoToSleep(*word),
            Borrower::Enter(expected) if *word == expected => {
                word.at_work += 1;
                *seen = word.piece;
                Borrower::Work
            }
            Borrower::Enter(_) => Borrower::Look,
            Borrower::Work => {
                let lends = [Lender::LookForSleepers, Lender::Lock, Lender::Notify, Lender::Close, Lender::AwaitWork];
                assert!(lends.contains(&self.lender) && word.piece == *seen, "work is called while it is lent");
                Borrower::Leave
            }
            Borrower::Leave => {
                word.at_work -= 1;
                Borrower::Look
            }
            Borrower::GoToSleep(last) => {
                *awake -= 1;
                Borrower::Lock(last)
            }
            Borrower::Lock(_) | Borrower::Relock(_) if *locked => return None,
            Borrower::Lock(last) => {
                *locked = true;
                Borrower::CountAsleep(last)
            }
            Borrower::Relock(last) => {
                *locked = true;
                Borrower::LookForNews(last)
            }
            Borrower::CountAsleep(last) => {
                *asleep += 1;
                Borrower::LookForNews(last)
            }
            Borrower::LookForNews(last) if is_news(*word, last.piece) => Borrower::Wake,
            Borrower::LookForNews(last) => Borrower::Settle(last),
            Borrower::Settle(last) => {
                *locked = false;
                Borrower::Waits(last)
            }
            Borrower::Wake => {
                *asleep -= 1;
                *locked = false;
                Borrower::Join
            }
            Borrower::Part => {
                *awake -= 1;
                Borrower::Gone
            }
            Borrower::Waits(_) | Borrower::Gone => return None,
        };
        Some(next)
    }
}

#[test]
fn every_order_ends_and_calls_no_work_that_is_over() {
    let pieces = 2;
    let borrowers = vec![(Borrower::Join, 0); 2];
    let first = State { shared: Shared::default(), lender: Lender::Open, borrowers };
    let (mut seen, mut ends) = (HashSet::from([first.clone()]), 0);
    let mut open = vec![first];
    while let Some(state) = open.pop() {
        let mut steps: Vec<State> = state.lent(pieces).into_iter().collect();
        steps.extend((0..state.borrowers.len()).filter_map(|at| state.borrowed(at)));
        let is_over = state.lender == Lender::Gone && state.borrowers.iter().all(|(at, _)| *at == Borrower::Gone);
        assert!(is_over || !steps.is_empty(), "all wait for each other: {state:?}");
        ends += usize::from(is_over);
        open.extend(steps.into_iter().filter(|step| seen.insert(step.clone())));
    }
    assert!(ends > 0 && seen.len() > 10_000, "{} states, {ends} of them ends", seen.len());
}
