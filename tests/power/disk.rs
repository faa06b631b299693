//! What a disk holds after a power cut, rebuilt from the journal of the layer in `layer.c`.
//!
//! The rules are those of a journaling file system that is as unkind as POSIX allows. What was synced is there, and for each
//! file and folder everything up to a moment of its own, since a kernel writes back when it likes. Later, each write is kept, lost, torn at its sectors, or leaves only zeros; the entries of one folder reach the disk in
//! the order of their changes, those of two folders in any. Syncing a file says nothing about its entry, nor syncing a folder
//! about the folder's own. The shared memory of SQLite (`-shm`) is lost.

use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// What a disk writes as a whole, in bytes.
const SECTOR: usize = 512;
/// Fields before the paths and the data of a record, in bytes.
const HEAD: usize = 40;

/// One change below the watched folder. Files and folders are known by their inodes.
#[derive(Clone, Debug)]
enum Change {
    Create(PathBuf, u64),
    Mkdir(PathBuf, u64),
    Write(u64, usize, Vec<u8>),
    Resize(u64, usize),
    Sync(u64),
    Rename(PathBuf, PathBuf),
    Link(PathBuf, PathBuf),
    Unlink(PathBuf),
}

/// Chance, the same for the same seed.
pub struct Dice(pub u64);

impl Dice {
    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % end.max(1) as u64) as usize
    }
}

/// Everything that happened below one folder, in order.
pub struct Journal {
    folder: PathBuf,
    changes: Vec<Change>,
}

impl Journal {
    /// Begins with what is in `folder`, all of it on disk.
    pub fn of(folder: &Path) -> Self {
        let folder = folder.canonicalize().expect("the folder is there");
        let mut changes = Vec::new();
        for (path, bytes) in tree(&folder) {
            changes.extend(appeared(&folder.join(path), bytes));
        }
        let inodes = changes.iter().filter_map(|change| match change {
            Change::Create(_, inode) | Change::Mkdir(_, inode) => Some(*inode),
            _ => None,
        });
        let mut synced: Vec<Change> = inodes.map(Change::Sync).collect();
        synced.push(Change::Sync(inode(&folder)));
        changes.append(&mut synced);
        Self { folder, changes }
    }

    /// How many changes there are, so far.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// How many changes are in the journal that a process writes to `file`.
    pub fn records(file: &Path) -> usize {
        changes(file).len()
    }

    /// Adds what a process did that wrote its journal to `file`. Returns how many paths of the folder are not as the journal
    /// says, and takes them over as they are: a kill may fall between a change and its record, and nothing else does that.
    pub fn add(&mut self, file: &Path) -> usize {
        self.changes.extend(changes(file));
        let (is, known) = (tree(&self.folder), self.everything(self.len()));
        let gone = known.keys().filter(|path| !is.contains_key(*path)).map(|path| self.folder.join(path));
        let mut missed: Vec<Vec<Change>> = gone.map(|path| vec![Change::Unlink(path)]).collect();
        for (path, bytes) in &is {
            let whole = self.folder.join(path);
            match (known.get(path), bytes) {
                (Some(known), bytes) if known == bytes => {}
                (Some(Some(_)), Some(bytes)) => {
                    let inode = inode(&whole);
                    missed.push(vec![Change::Resize(inode, 0), Change::Write(inode, 0, bytes.clone())]);
                }
                (_, bytes) => missed.push(appeared(&whole, bytes.clone())),
            }
        }
        let count = missed.len();
        self.changes.extend(missed.into_iter().flatten());
        count
    }

    /// What processes saw after the first `upto` changes: paths with their bytes, folders with none.
    fn everything(&self, upto: usize) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
        self.replay(upto).tree(None)
    }

    /// What a kill at that moment would leave, written to `target`.
    pub fn killed(&self, upto: usize, target: &Path) {
        write_tree(self.everything(upto), target);
    }

    /// What a power cut at that moment leaves, written to `target`.
    pub fn cut(&self, upto: usize, dice: &mut Dice, target: &Path) {
        write_tree(self.replay(upto).tree(Some(dice)), target);
    }

    fn replay(&self, upto: usize) -> Replay {
        let root = Node { folder: true, ..Node::default() };
        let mut replay = Replay { count: 0, nodes: vec![root], current: HashMap::from([(inode(&self.folder), 0)]) };
        for change in &self.changes[..upto] {
            replay.apply(&self.folder, change);
            replay.count += 1;
        }
        replay
    }
}

/// A file or folder, with everything that was done to it.
#[derive(Default)]
struct Node {
    folder: bool,
    /// Each with how many changes there were before it.
    data: Vec<(usize, Data)>,
    entries: Vec<(usize, Entry)>,
    /// How many of either are on disk.
    synced: usize,
    /// The entries as processes see them.
    seen: BTreeMap<String, usize>,
}

enum Data {
    Write(usize, Vec<u8>),
    Resize(usize),
}

#[derive(Clone)]
enum Entry {
    Add(String, usize),
    Remove(String),
    Rename(String, String),
}

impl Entry {
    fn apply(&self, entries: &mut BTreeMap<String, usize>) {
        match self {
            Self::Add(name, node) => drop(entries.insert(name.clone(), *node)),
            Self::Remove(name) => drop(entries.remove(name)),
            Self::Rename(from, to) => {
                let node = entries.remove(from).expect("what is renamed was added before, in the same folder");
                entries.insert(to.clone(), node);
            }
        }
    }
}

struct Replay {
    /// Changes so far.
    count: usize,
    nodes: Vec<Node>,
    /// Which node has an inode now; inodes are used again.
    current: HashMap<u64, usize>,
}

impl Replay {
    fn apply(&mut self, root: &Path, change: &Change) {
        match change {
            Change::Create(path, inode) | Change::Mkdir(path, inode) => {
                let folder = matches!(change, Change::Mkdir(..));
                self.nodes.push(Node { folder, ..Node::default() });
                let node = self.nodes.len() - 1;
                self.current.insert(*inode, node);
                self.enter(root, path, |name| Entry::Add(name, node));
            }
            Change::Write(inode, at, bytes) => self.changed(*inode, Data::Write(*at, bytes.clone())),
            Change::Resize(inode, size) => self.changed(*inode, Data::Resize(*size)),
            Change::Sync(inode) => {
                let node = self.node(*inode);
                node.synced = node.data.len() + node.entries.len();
            }
            Change::Rename(from, to) => {
                assert_eq!(from.parent(), to.parent(), "no rule yet for what moves from folder to folder");
                let from = name(from);
                self.enter(root, to, |to| Entry::Rename(from, to));
            }
            Change::Link(from, to) => {
                let node = self.find(root, from);
                self.enter(root, to, |name| Entry::Add(name, node));
            }
            Change::Unlink(path) => self.enter(root, path, Entry::Remove),
        }
    }

    fn node(&mut self, inode: u64) -> &mut Node {
        &mut self.nodes[self.current[&inode]]
    }

    fn changed(&mut self, inode: u64, data: Data) {
        let count = self.count;
        self.node(inode).data.push((count, data));
    }

    fn find(&self, root: &Path, path: &Path) -> usize {
        let inside = path.strip_prefix(root).expect("only what is below the root is watched");
        inside.components().fold(0, |node, part| match part {
            Component::Normal(part) => self.nodes[node].seen[&part.to_string_lossy().into_owned()],
            _ => unreachable!("the layer writes whole paths"),
        })
    }

    /// Changes the folder that holds `path`.
    fn enter(&mut self, root: &Path, path: &Path, entry: impl FnOnce(String) -> Entry) {
        let folder = self.find(root, path.parent().expect("it is in a folder"));
        let (entry, folder) = (entry(name(path)), &mut self.nodes[folder]);
        entry.apply(&mut folder.seen);
        folder.entries.push((self.count, entry));
    }

    /// The files and folders that can be reached: as processes see them, or as a power cut leaves them.
    fn tree(&self, mut dice: Option<&mut Dice>) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
        let (mut found, mut waiting) = (BTreeMap::new(), vec![(PathBuf::new(), 0)]);
        while let Some((path, node)) = waiting.pop() {
            let node = &self.nodes[node];
            let written_back = dice.as_deref_mut().map_or(self.count, |dice| match dice.below(3) {
                0 => 0,
                1 => dice.below(self.count + 1),
                _ => self.count,
            });
            if !node.folder {
                found.insert(path, Some(node.bytes(written_back, dice.as_deref_mut())));
                continue;
            }
            let safe = node.entries.partition_point(|(count, _)| *count < written_back).max(node.synced);
            let on_disk = safe + dice.as_deref_mut().map_or(0, |dice| dice.below(node.entries.len() - safe + 1));
            let mut entries = BTreeMap::new();
            node.entries[..on_disk].iter().for_each(|(_, entry)| entry.apply(&mut entries));
            entries.retain(|name, _| !name.ends_with("-shm"));
            waiting.extend(entries.into_iter().map(|(name, node)| (path.join(name), node)));
            if path != Path::new("") {
                found.insert(path, None);
            }
        }
        found
    }
}

impl Node {
    fn bytes(&self, written_back: usize, mut dice: Option<&mut Dice>) -> Vec<u8> {
        let mut file = Vec::new();
        for (n, (count, data)) in self.data.iter().enumerate() {
            let dice = dice.as_deref_mut().filter(|_| n >= self.synced && *count >= written_back);
            match (data, dice) {
                (Data::Resize(size), dice) => {
                    if dice.is_none_or(|dice| dice.below(2) == 0) {
                        file.resize(*size, 0);
                    }
                }
                (Data::Write(at, bytes), None) => put(&mut file, *at, bytes),
                (Data::Write(at, bytes), Some(dice)) => match dice.below(4) {
                    0 => put(&mut file, *at, bytes),
                    1 => tear(&mut file, (*at, bytes), dice),
                    // The new size came to the disk, the bytes did not.
                    2 if at + bytes.len() > file.len() => file.resize(at + bytes.len(), 0),
                    _ => {}
                },
            }
        }
        file
    }
}

fn put(file: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let end = at + bytes.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    file[at..end].copy_from_slice(bytes);
}

/// Puts some of the sectors.
fn tear(file: &mut Vec<u8>, (at, bytes): (usize, &[u8]), dice: &mut Dice) {
    let end = at + bytes.len();
    let mut from = at;
    while from < end {
        let upto = (from / SECTOR * SECTOR + SECTOR).min(end);
        if dice.below(2) == 0 {
            put(file, from, &bytes[from - at..upto - at]);
        }
        from = upto;
    }
}

fn name(path: &Path) -> String {
    path.file_name().expect("it has a name").to_string_lossy().into_owned()
}

fn inode(path: &Path) -> u64 {
    std::fs::metadata(path).expect("it is there").ino()
}

/// The changes that make what is at `path`.
fn appeared(path: &Path, bytes: Option<Vec<u8>>) -> Vec<Change> {
    let (path, inode) = (path.to_owned(), inode(path));
    match bytes {
        None => vec![Change::Mkdir(path, inode)],
        Some(bytes) => vec![Change::Create(path, inode), Change::Write(inode, 0, bytes)],
    }
}

/// Everything below a folder: paths with their bytes, folders with none, each after the folder that it is in.
pub fn tree(folder: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let (mut found, mut waiting) = (BTreeMap::new(), vec![folder.to_owned()]);
    while let Some(next) = waiting.pop() {
        for entry in std::fs::read_dir(next).expect("lists") {
            let path = entry.expect("an entry").path();
            let bytes = if path.is_dir() { None } else { Some(std::fs::read(&path).expect("reads")) };
            if bytes.is_none() {
                waiting.push(path.clone());
            }
            found.insert(path.strip_prefix(folder).expect("it is below").to_owned(), bytes);
        }
    }
    found.retain(|path, _| !path.to_string_lossy().ends_with("-shm"));
    found
}

fn write_tree(tree: BTreeMap<PathBuf, Option<Vec<u8>>>, target: &Path) {
    for (path, bytes) in tree {
        let path = target.join(path);
        match bytes {
            None => std::fs::create_dir(path).expect("makes"),
            Some(bytes) => std::fs::write(path, bytes).expect("writes"),
        }
    }
}

fn changes(file: &Path) -> Vec<Change> {
    let bytes = std::fs::read(file).expect("the layer has written a journal");
    let (mut changes, mut rest) = (Vec::new(), &bytes[..]);
    while let Some((change, next)) = parse(rest) {
        changes.push(change);
        rest = next;
    }
    changes
}

/// The next record of a journal, and what follows it. The last one may be torn by a kill.
fn parse(bytes: &[u8]) -> Option<(Change, &[u8])> {
    use std::os::unix::ffi::OsStrExt;
    let (head, rest) = bytes.split_at_checked(HEAD)?;
    let small = |at: usize| u32::from_ne_bytes(head[at..at + 4].try_into().expect("four bytes")) as usize;
    let large = |at: usize| u64::from_ne_bytes(head[at..at + 8].try_into().expect("eight bytes"));
    let (inode, at) = (large(16), large(24) as usize);
    let (first, rest) = rest.split_at_checked(small(4))?;
    let (second, rest) = rest.split_at_checked(small(8))?;
    let (data, rest) = rest.split_at_checked(large(32) as usize)?;
    let [first, second] = [first, second].map(|path| PathBuf::from(std::ffi::OsStr::from_bytes(path)));
    let change = match small(0) {
        1 => Change::Create(first, inode),
        2 => Change::Mkdir(first, inode),
        3 => Change::Write(inode, at, data.to_vec()),
        4 => Change::Resize(inode, at),
        5 => Change::Sync(inode),
        6 => Change::Rename(first, second),
        7 => Change::Link(first, second),
        8 => Change::Unlink(first),
        kind => panic!("the layer writes no records of kind {kind}"),
    };
    Some((change, rest))
}
