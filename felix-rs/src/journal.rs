//! The journal's file: appended to before an ADD answers, compacted when it has grown.
//!
//! A record is in the page cache when [`Journal::append`] returns, so that it survives the death
//! of the process; claims of blocks are also on the disk, since they outlive the pods of a node
//! that loses power.

use ipam::journal::{HEADER, Record, State, compact, encode, replay};
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

const FILE: &str = "journal";
/// A journal below this length is not compacted.
const COMPACT_ABOVE: u64 = 256 * 1024;

/// The journal of this node.
pub(crate) struct Journal {
    folder: PathBuf,
    file: File,
    state: State,
    length: u64,
    /// It was missing or damaged when it was opened.
    lost: bool,
    /// Length after the last compaction.
    compact_length: u64,
    /// What happened and could not be written yet, in order. It is in `state` already.
    unwritten: Vec<Record>,
    /// Why it can't be written to, since the last attempt.
    trouble: Option<String>,
}

/// What failed about the journal.
#[derive(Debug, thiserror::Error)]
#[error("journal {path}: {operation}: {source}")]
pub(crate) struct JournalError {
    path: PathBuf,
    operation: &'static str,
    #[source]
    source: std::io::Error,
}

impl Journal {
    /// Opens the journal in `folder`, or begins one. Damage is reported, and what stood before it
    /// is used; the damaged file is kept beside the new one. `read_only` leaves the disk alone.
    pub(crate) fn open(folder: &Path) -> Result<Self, JournalError> {
        let (state, damaged) = read(folder)?;
        let lost = damaged || !folder.join(FILE).exists();
        if damaged {
            let kept = folder.join("journal.damaged");
            std::fs::copy(folder.join(FILE), kept).map_err(|e| failed(folder, "keep a copy", e))?;
        }
        let (file, length) = rewrite(folder, &state).map_err(|e| failed(folder, "rewrite", e))?;
        Ok(Self {
            folder: folder.to_owned(),
            file,
            state,
            length,
            compact_length: length,
            unwritten: Vec::new(),
            trouble: None,
            lost,
        })
    }

    /// What the journal says, without touching it.
    pub(crate) fn peek(folder: &Path) -> Result<State, JournalError> {
        read(folder).map(|(state, _)| state)
    }

    /// Whether it was missing or damaged when it was opened: pods may run that it does not know.
    pub(crate) fn was_lost(&self) -> bool {
        self.lost
    }

    /// What it says.
    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// Add a record. What could not be written before goes first, so that the journal never gives
    /// an address to somebody before it has taken it from somebody else.
    pub(crate) fn append(&mut self, record: &Record) -> Result<(), JournalError> {
        let result = self
            .write_unwritten()
            .and_then(|()| self.write(record))
            .map(|()| self.state.apply(record));
        let before = std::mem::replace(
            &mut self.trouble,
            result.as_ref().err().map(ToString::to_string),
        );
        if before.is_some() && self.trouble.is_none() {
            tracing::info!("the journal can be written again");
        }
        result
    }

    /// Add a record of what has happened and can't be undone. Where it can't be written it is
    /// kept, and written before anything else.
    pub(crate) fn note(&mut self, record: Record) {
        if let Err(error) = self.append(&record) {
            tracing::error!(%error, "not journaled yet, will be tried again");
            self.state.apply(&record);
            self.unwritten.push(record);
        }
    }

    /// Why nothing can be written, if that is so.
    pub(crate) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Try again where something could not be written.
    pub(crate) fn catch_up(&mut self) {
        if self.trouble.is_some() {
            // Says nothing that is not known: whether it can be written is what is asked.
            let probe = Record::NextSequence(self.state.next_sequence);
            // Kept as the trouble, if it is one.
            let _ = self.append(&probe);
        }
    }

    fn write_unwritten(&mut self) -> Result<(), JournalError> {
        while let Some(record) = self.unwritten.first().cloned() {
            self.write(&record)?;
            self.unwritten.remove(0);
        }
        Ok(())
    }

    fn write(&mut self, record: &Record) -> Result<(), JournalError> {
        let bytes = encode(record);
        if let Err(error) = self.file.write_all(&bytes) {
            // A torn record would hide what follows it.
            let _ = self.file.set_len(self.length);
            let _ = self.file.seek(SeekFrom::Start(self.length));
            return Err(failed(&self.folder, "append", error));
        }
        self.length += bytes.len() as u64;
        if matches!(record, Record::Block(_) | Record::BlockGone(_)) {
            self.file
                .sync_data()
                .map_err(|e| failed(&self.folder, "sync", e))?;
        }
        Ok(())
    }

    /// Write the journal anew if most of it is history. Off the path of a reply.
    pub(crate) fn tidy(&mut self, now_ms: u64, cooldown_ms: u64) -> Result<(), JournalError> {
        if self.length < COMPACT_ABOVE.max(self.compact_length * 4) {
            return Ok(());
        }
        self.state.expire(now_ms, cooldown_ms);
        let (file, length) =
            rewrite(&self.folder, &self.state).map_err(|e| failed(&self.folder, "compact", e))?;
        self.file = file;
        self.length = length;
        self.compact_length = length;
        self.unwritten.clear();
        Ok(())
    }
}

fn failed(folder: &Path, operation: &'static str, source: std::io::Error) -> JournalError {
    JournalError {
        path: folder.join(FILE),
        operation,
        source,
    }
}

fn read(folder: &Path) -> Result<(State, bool), JournalError> {
    let bytes = match std::fs::read(folder.join(FILE)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => HEADER.to_vec(),
        Err(error) => return Err(failed(folder, "read", error)),
    };
    let replayed = replay(&bytes);
    if let Some(corrupt) = &replayed.corrupt {
        tracing::error!(
            journal = %folder.join(FILE).display(),
            offset = corrupt.offset,
            reason = %corrupt.reason,
            records = replayed.records.len(),
            "journal damaged: going on with the records before the damage"
        );
    }
    Ok((
        State::from_records(&replayed.records),
        replayed.corrupt.is_some(),
    ))
}

fn rewrite(folder: &Path, state: &State) -> Result<(File, u64), std::io::Error> {
    let temporary = folder.join("journal.new");
    let mut file = File::create(&temporary)?;
    let bytes = compact(state);
    let written = file.write_all(&bytes).and_then(|()| file.sync_all());
    if let Err(error) = written {
        // Half a journal would take the room that the next attempt needs.
        let _ = std::fs::remove_file(&temporary);
        return Err(error);
    }
    std::fs::rename(&temporary, folder.join(FILE))?;
    File::open(folder)?.sync_all()?;
    Ok((file, bytes.len() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::IpamBlock;

    fn block(cidr: &str) -> Record {
        Record::Block(IpamBlock {
            cidr: cidr.parse().unwrap(),
            node: "n1".into(),
        })
    }

    #[test]
    fn what_was_appended_is_there_after_a_reopen() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(folder.path()).unwrap();
        journal.append(&block("10.244.0.0/26")).unwrap();
        journal.append(&block("10.244.0.64/26")).unwrap();
        drop(journal);
        assert_eq!(
            Journal::open(folder.path()).unwrap().state().blocks.len(),
            2
        );
        assert_eq!(Journal::peek(folder.path()).unwrap().blocks.len(), 2);
    }

    #[test]
    fn a_torn_tail_is_cut_and_what_follows_is_readable() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(folder.path()).unwrap();
        journal.append(&block("10.244.0.0/26")).unwrap();
        journal.append(&block("10.244.0.64/26")).unwrap();
        drop(journal);
        let path = folder.path().join(FILE);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();
        let mut journal = Journal::open(folder.path()).unwrap();
        assert_eq!(journal.state().blocks.len(), 1);
        journal.append(&block("10.244.0.128/26")).unwrap();
        drop(journal);
        assert_eq!(
            Journal::open(folder.path()).unwrap().state().blocks.len(),
            2
        );
    }

    #[test]
    fn a_flipped_byte_keeps_a_copy_of_the_damaged_file() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(folder.path()).unwrap();
        journal.append(&block("10.244.0.0/26")).unwrap();
        journal.append(&block("10.244.0.64/26")).unwrap();
        drop(journal);
        let path = folder.path().join(FILE);
        let mut bytes = std::fs::read(&path).unwrap();
        let last = bytes.len() - 5;
        bytes[last] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(
            Journal::open(folder.path()).unwrap().state().blocks.len(),
            1
        );
        assert_eq!(
            std::fs::read(folder.path().join("journal.damaged")).unwrap(),
            bytes
        );
    }

    #[test]
    fn what_could_not_be_written_goes_first_when_it_can_be() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(folder.path()).unwrap();
        journal.append(&block("10.244.0.0/26")).unwrap();
        let path = folder.path().join(FILE);
        // A file that can't be written to stands for a full disk.
        let writable = std::mem::replace(&mut journal.file, File::open(&path).unwrap());
        journal.note(Record::BlockGone("10.244.0.0/26".parse().unwrap()));
        assert!(journal.append(&block("10.244.0.64/26")).is_err());
        assert!(journal.state().blocks.is_empty() && journal.trouble().is_some());
        journal.catch_up();
        assert!(journal.trouble().is_some());
        journal.file = writable;
        journal.append(&block("10.244.0.0/26")).unwrap();
        assert_eq!(journal.trouble(), None);
        drop(journal);
        let state = Journal::peek(folder.path()).unwrap();
        let blocks: Vec<String> = state.blocks.keys().map(ToString::to_string).collect();
        assert_eq!(blocks, ["10.244.0.0/26"]);
    }
}
