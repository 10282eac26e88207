//! [`Checkpoint`]: parameters, optimisers, generators and counters in a file, to continue bit for
//! bit.

mod archive;
pub(crate) mod error;
mod replace;
mod undo;
mod unique;

use core::{fmt, ptr};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufReader, Cursor, Read, Seek};
use std::path::Path;
use std::sync::Arc;

use sorix_core::Tensor;
use sorix_core::autograd::no_grad;

use self::archive::{Archive, Entry, Found, io_error, reserved};
use self::error::CheckpointError;
use self::undo::Undo;
use crate::batches::{Batches, BatchesState};
use crate::error::Result;
use crate::generator::{Generator, GeneratorState};
use crate::init::check_writable;
use crate::module::Module;
use crate::optim::{Optimizer, OptimizerState, ParameterState};

/// What to save in a file, or to load from one: sections of parameters, optimisers, generators and
/// counters, each under a name.
///
/// A run that saves all of them, loads them into objects made anew and goes on gives the same
/// numbers, bit for bit, as one that was not interrupted. Include the [generator of the
/// process](crate::default_generator) where a dropout has none of its own, and whatever else draws.
///
/// The file is in the [safetensors](https://github.com/huggingface/safetensors) format, version 1 of
/// sorix' layout. An entry is called `section.path.name`; a section without a name, the only one
/// then, gives plain names such as `0.weight`, which other programs read and write too. A generator
/// is two U64, seed and offset, and a counter one. The file's metadata has a checksum of each entry,
/// by which a load finds damage; a file without them, as other programs write it, loads as well.
///
/// Tensors are written and read one by one: neither takes more memory than the largest tensor beyond
/// what the model has, but for the states of optimisers, which are read before they are set.
///
/// # Files of other programs
///
/// [`entries`](Self::entries) lists what is in a file. [`rename`](Self::rename) says what a parameter is
/// called there, [`only`](Self::only) chooses some, [`convert_dtypes`](Self::convert_dtypes) takes other
/// dtypes, and [`ignore_others`](Self::ignore_others) leaves out what the module does not have.
///
/// # Tied parameters
///
/// A tensor that a module has under several names is written under each. To load, the file may have
/// it under one of them or more; if they differ there, that is an error. A generator that layers share is
/// written under each of its names, too, and has to be the same under all of them.
///
/// ```
/// use sorix_core::{DType, Tensor};
/// use sorix_nn::{
///     Adam, Checkpoint, Dropout, Generator, Linear, Module, Optimizer, Result, Sequential,
/// };
///
/// fn network(seed: u64) -> Result<(Sequential, Adam)> {
///     let generator = Generator::new(seed);
///     let net = Sequential::new()
///         .with(Linear::new(2, 3, &generator)?)
///         .with(Dropout::new(0.5)?.generator(generator.fork("dropout")));
///     let adam = Adam::new(net.named_parameters(), 1e-3)?;
///     Ok((net, adam))
/// }
///
/// let (net, mut adam) = network(1)?;
/// net.forward(&Tensor::ones([4, 2], DType::F32)?)?.sum()?.backward()?;
/// adam.step()?;
/// let bytes = Checkpoint::new()
///     .parameters("model", &net)
///     .generators("dropout", &net)
///     .optimizer("optimizer", &mut adam)
///     .to_bytes()?;
///
/// let (again, mut adam) = network(2)?;
/// Checkpoint::new()
///     .parameters("model", &again)
///     .generators("dropout", &again)
///     .optimizer("optimizer", &mut adam)
///     .load_bytes(&bytes)?;
/// let x = Tensor::ones([4, 2], DType::F32)?;
/// assert_eq!(again.forward(&x)?.to_vec::<f32>()?, net.forward(&x)?.to_vec::<f32>()?);
///
/// // To use the network, its parameters are enough.
/// Checkpoint::new().parameters("model", &again).load_bytes(&bytes)?;
/// # Ok::<(), sorix_nn::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct Checkpoint<'a> {
    sections: Vec<(String, Section<'a>)>,
    choice: Choice<'a>,
}

/// Which parameters, and what they are in the file.
#[derive(Default)]
struct Choice<'a> {
    // References, so that a checkpoint that is no longer used may be forgotten before what it refers to.
    rename: Option<&'a (dyn Fn(&str) -> String + Sync)>,
    only: Option<&'a (dyn Fn(&str) -> bool + Sync)>,
    convert: bool,
    ignore_others: bool,
}

impl fmt::Debug for Choice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Choice")
            .field("rename", &self.rename.is_some())
            .field("only", &self.only.is_some())
            .field("convert", &self.convert)
            .field("ignore_others", &self.ignore_others)
            .finish()
    }
}

impl Choice<'_> {
    fn takes(&self, parameter: &str) -> bool {
        self.only.is_none_or(|only| only(parameter))
    }

    /// What an entry is called.
    fn path(&self, section: &str, parameter: &str) -> String {
        match &self.rename {
            Some(rename) => join(section, &rename(parameter)),
            None => join(section, parameter),
        }
    }
}

/// What a file says of one of its entries; from [`Checkpoint::entries`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckpointEntry {
    /// The name, with that of the section.
    pub name: String,
    /// The dtype, as the format calls it: `F32`, `BF16`, `U64`.
    pub dtype: String,
    /// The shape.
    pub shape: Vec<usize>,
}

#[derive(Debug)]
enum Section<'a> {
    Parameters(Vec<(String, Tensor)>),
    Generators(Vec<(String, Arc<Generator>)>),
    Generator(&'a Generator),
    Optimizer(&'a mut dyn Optimizer),
    Counter(&'a mut u64),
    Batches(&'a mut Batches),
}

/// What a section will become.
enum Loaded {
    /// By their place in the section; of those that are one tensor, one.
    Parameters(Vec<(usize, Found)>),
    Generators(Vec<GeneratorState>),
    Optimizer(OptimizerState),
    Counter(u64),
    Batches(BatchesState),
}

impl<'a> Checkpoint<'a> {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With the parameters of a module.
    #[must_use]
    pub fn parameters(self, section: &str, module: &dyn Module) -> Self {
        self.with(section, Section::Parameters(module.named_parameters()))
    }

    /// With tensors under these names, which loading overwrites: what is kept beside a module, such as the
    /// [average](crate::ParameterAverage::named_tensors) of its parameters.
    #[must_use]
    pub fn tensors(
        self,
        section: &str,
        tensors: impl IntoIterator<Item = (String, Tensor)>,
    ) -> Self {
        self.with(section, Section::Parameters(tensors.into_iter().collect()))
    }

    /// With the generators that the layers of a module own.
    #[must_use]
    pub fn generators(self, section: &str, module: &dyn Module) -> Self {
        self.with(section, Section::Generators(module.named_generators()))
    }

    /// With a generator: that of the process, that of a shuffle.
    ///
    /// ```
    /// use sorix_nn::{Checkpoint, Generator};
    ///
    /// let shuffle = Generator::new(42);
    /// let bytes = Checkpoint::new().generator("shuffle", &shuffle).to_bytes()?;
    /// let next = shuffle.next_key();
    /// Checkpoint::new().generator("shuffle", &shuffle).load_bytes(&bytes)?;
    /// assert_eq!(shuffle.next_key(), next);
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    #[must_use]
    pub fn generator(self, section: &str, generator: &'a Generator) -> Self {
        self.with(section, Section::Generator(generator))
    }

    /// With the state of an optimiser: its hyperparameters, and for each parameter the number of
    /// steps and what it keeps.
    ///
    /// Loading sets the hyperparameters too, as in PyTorch; whoever wants others chooses them
    /// afterwards. A file of one kind of optimiser does not fit another.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// use sorix_nn::{Checkpoint, Optimizer, Sgd};
    ///
    /// let parameters = || [("w".to_owned(), tensor([1.0]).requires_grad(true))];
    /// let mut saved = Sgd::new(parameters(), 0.1)?.momentum(0.9)?;
    /// let bytes = Checkpoint::new().optimizer("sgd", &mut saved).to_bytes()?;
    ///
    /// let mut sgd = Sgd::new(parameters(), 0.5)?;
    /// Checkpoint::new().optimizer("sgd", &mut sgd).load_bytes(&bytes)?;
    /// assert_eq!(sgd.state().hyperparameters, saved.state().hyperparameters);
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    #[must_use]
    pub fn optimizer(self, section: &str, optimizer: &'a mut dyn Optimizer) -> Self {
        self.with(section, Section::Optimizer(optimizer))
    }

    /// With a number of the caller's own: of epochs, of steps, of examples seen.
    ///
    /// ```
    /// use sorix_nn::Checkpoint;
    ///
    /// let mut epoch = 3;
    /// let bytes = Checkpoint::new().counter("epoch", &mut epoch).to_bytes()?;
    ///
    /// let mut begin = 0;
    /// Checkpoint::new().counter("epoch", &mut begin).load_bytes(&bytes)?;
    /// assert_eq!(begin, 3);
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    #[must_use]
    pub fn counter(self, section: &str, counter: &'a mut u64) -> Self {
        self.with(section, Section::Counter(counter))
    }

    /// With the place in a sequence of batches: four U64, as in [`BatchesState`].
    ///
    /// ```
    /// use sorix_nn::{Batches, Checkpoint};
    ///
    /// let mut batches = Batches::new(10, 3)?.shuffle(42);
    /// batches.next();
    /// let bytes = Checkpoint::new().batches("data", &mut batches).to_bytes()?;
    ///
    /// let mut again = Batches::new(10, 3)?.shuffle(0);
    /// Checkpoint::new().batches("data", &mut again).load_bytes(&bytes)?;
    /// assert_eq!(again.next(), batches.next());
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    #[must_use]
    pub fn batches(self, section: &str, batches: &'a mut Batches) -> Self {
        self.with(section, Section::Batches(batches))
    }

    /// In the file, parameters have the names that `rename` makes of those of the module.
    ///
    /// ```
    /// use sorix_nn::{Checkpoint, Generator, Linear};
    ///
    /// let saved = Linear::new(2, 3, &Generator::new(1))?;
    /// let bytes = Checkpoint::new().parameters("", &saved).rename(&|name| format!("fc.{name}")).to_bytes()?;
    ///
    /// let linear = Linear::new(2, 3, &Generator::new(2))?;
    /// Checkpoint::new().parameters("", &linear).rename(&|name| format!("fc.{name}")).load_bytes(&bytes)?;
    /// assert_eq!(linear.weight().to_vec::<f32>()?, saved.weight().to_vec::<f32>()?);
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    #[must_use]
    pub fn rename(mut self, rename: &'a (dyn Fn(&str) -> String + Sync)) -> Self {
        self.choice.rename = Some(rename);
        self
    }

    /// Of the parameters only those whose names in the module `takes` says. The others stay as they are,
    /// and where the file has them, that is an error unless it is to [ignore](Self::ignore_others) them.
    ///
    /// ```
    /// use sorix_nn::{Checkpoint, Generator, Linear};
    ///
    /// let saved = Linear::new(2, 3, &Generator::new(1))?;
    /// let bytes = Checkpoint::new().parameters("", &saved).to_bytes()?;
    /// let linear = Linear::new(2, 3, &Generator::new(2))?;
    /// Checkpoint::new()
    ///     .parameters("", &linear)
    ///     .only(&|name| name == "bias")
    ///     .ignore_others()
    ///     .load_bytes(&bytes)?;
    /// let (bias, weight) = (linear.bias().unwrap(), linear.weight());
    /// assert_eq!(bias.to_vec::<f32>()?, saved.bias().unwrap().to_vec::<f32>()?);
    /// assert_ne!(weight.to_vec::<f32>()?, saved.weight().to_vec::<f32>()?);
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    #[must_use]
    pub fn only(mut self, takes: &'a (dyn Fn(&str) -> bool + Sync)) -> Self {
        self.choice.only = Some(takes);
        self
    }

    /// Parameters that have another dtype in the file are converted to their own, each element rounded
    /// once. Without this they are an error.
    ///
    /// ```
    /// use sorix_core::DType;
    /// use sorix_nn::{Checkpoint, Generator, Linear};
    ///
    /// let saved = Linear::new(2, 3, &Generator::new(1))?;
    /// let bytes = Checkpoint::new().parameters("", &saved).to_bytes()?;
    /// let half = Linear::with_dtype(2, 3, DType::BF16, &Generator::new(2))?;
    /// Checkpoint::new().parameters("", &half).convert_dtypes().load_bytes(&bytes)?;
    /// let expected = saved.weight().to_dtype(DType::BF16)?;
    /// assert_eq!(half.weight().to_le_bytes()?, expected.to_le_bytes()?);
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    #[must_use]
    pub fn convert_dtypes(mut self) -> Self {
        self.choice.convert = true;
        self
    }

    /// Entries that no section asks for are no error.
    #[must_use]
    pub fn ignore_others(mut self) -> Self {
        self.choice.ignore_others = true;
        self
    }

    /// What is in a file, by name. Only the header is read.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or is not in the format.
    ///
    /// ```
    /// use sorix_nn::{Checkpoint, Generator, Linear};
    ///
    /// let linear = Linear::new(2, 3, &Generator::new(42))?;
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path().join("linear.safetensors");
    /// Checkpoint::new().parameters("", &linear).save(&path)?;
    /// let entries = Checkpoint::entries(&path)?;
    /// assert_eq!((&*entries[1].name, &*entries[1].dtype), ("weight", "F32"));
    /// assert_eq!(entries[1].shape, [3, 2]);
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    pub fn entries(path: impl AsRef<Path>) -> Result<Vec<CheckpointEntry>> {
        let path = path.as_ref();
        let file = File::open(path).map_err(io_error(path))?;
        let archive = Archive::open(BufReader::new(file), path)?;
        let entries = archive.entries().into_iter();
        Ok(entries
            .map(|(name, info)| CheckpointEntry {
                name,
                dtype: info.dtype.to_string(),
                shape: info.shape.clone(),
            })
            .collect())
    }

    fn with(mut self, section: &str, content: Section<'a>) -> Self {
        self.sections.push((section.to_owned(), content));
        self
    }

    /// The file, in memory. For an example see [`Checkpoint`].
    ///
    /// # Errors
    ///
    /// If names of sections repeat or contain a dot, or one of several is empty; if two entries of a
    /// section have one name, or one is called `__metadata__`, which the format keeps for itself; if
    /// allocation fails.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        self.file()?.into_bytes()
    }

    fn file(&self) -> Result<archive::File> {
        self.check_sections()?;
        let mut entries = BTreeMap::new();
        let mut add = |section: &str, path: &str, entry: Entry| match entries
            .insert(join(section, path), entry)
        {
            None => Ok(()),
            Some(_) => Err(CheckpointError::Repeated {
                name: join(section, path),
            }),
        };
        for (section, content) in &self.sections {
            match content {
                Section::Parameters(parameters) => {
                    for (name, parameter) in parameters {
                        if self.choice.takes(name) {
                            let path = self.choice.path("", name);
                            add(section, &path, Entry::tensor(parameter)?)?;
                        }
                    }
                }
                Section::Generators(_) | Section::Generator(_) => {
                    for (name, generator) in content.generators() {
                        let GeneratorState { seed, offset } = generator.state();
                        add(section, name, Entry::words(&[seed, offset]))?;
                    }
                }
                Section::Batches(batches) => {
                    let BatchesState {
                        seed,
                        epoch,
                        position,
                        examples,
                    } = batches.state();
                    let words = [seed, epoch, position, examples];
                    add(section, BATCHES, Entry::words(&words))?;
                }
                Section::Counter(counter) => {
                    add(section, COUNTER, Entry::words(&[**counter]))?;
                }
                Section::Optimizer(optimizer) => {
                    let state = optimizer.state();
                    for (name, number) in state.hyperparameters {
                        add(section, &name, Entry::number(number))?;
                    }
                    // Also a parameter without steps, so that entries that were lost are missed.
                    for (name, _) in optimizer.named_parameters() {
                        let kept = state.parameters.iter().find(|kept| kept.name == name);
                        let steps = kept.map_or(0, |kept| kept.steps);
                        add(section, &join(&name, STEPS), Entry::words(&[steps]))?;
                        for (field, tensor) in kept.iter().flat_map(|kept| &kept.tensors) {
                            add(section, &join(&name, field), Entry::tensor(tensor)?)?;
                        }
                    }
                }
            }
        }
        archive::File::of(entries)
    }

    /// Writes the file. It appears whole or not at all: one that was there before stays until the
    /// new one is on the disk, and leaves it its permissions. A symbolic link stays, and the file
    /// that it leads to is replaced.
    ///
    /// # Errors
    ///
    /// As [`to_bytes`](Self::to_bytes), and where the file cannot be written.
    ///
    /// ```
    /// use sorix_nn::{Checkpoint, Generator, Linear};
    ///
    /// let linear = Linear::new(2, 3, &Generator::new(42))?;
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path().join("linear.safetensors");
    /// Checkpoint::new().parameters("", &linear).save(&path)?;
    ///
    /// let again = Linear::new(2, 3, &Generator::new(7))?;
    /// Checkpoint::new().parameters("", &again).load(&path)?;
    /// assert_eq!(again.weight().to_vec::<f32>()?, linear.weight().to_vec::<f32>()?);
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let (path, file) = (path.as_ref(), self.file()?);
        Ok(replace::file(path, |writer| file.write_to(writer)).map_err(io_error(path))?)
    }

    /// [`load_bytes`](Self::load_bytes) of a file.
    ///
    /// # Errors
    ///
    /// As [`load_bytes`](Self::load_bytes), and where the file cannot be read.
    ///
    /// ```
    /// use std::io::ErrorKind;
    /// use sorix_nn::{Checkpoint, CheckpointError, Error, Generator, Linear};
    ///
    /// let linear = Linear::new(2, 3, &Generator::new(42))?;
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path().join("linear.safetensors");
    /// // The first run has nothing to continue.
    /// let begins = match Checkpoint::new().parameters("", &linear).load(&path) {
    ///     Err(Error::Checkpoint(CheckpointError::Io { kind: ErrorKind::NotFound, .. })) => true,
    ///     loaded => loaded.map(|()| false)?,
    /// };
    /// assert!(begins);
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    pub fn load(&mut self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let file = File::open(path).map_err(io_error(path))?;
        self.read(BufReader::new(file), path)
    }

    /// Sets everything to what the file says. For an example see [`Checkpoint`].
    ///
    /// A section has to contain what it would if it were saved, with the same names, shapes and
    /// dtypes, and nothing else. Other sections of the file are not looked at.
    ///
    /// One parameter is set after another: a thread that runs the same model meanwhile may see some
    /// old and some new. A service that changes its weights while it answers loads them into a second
    /// model and swaps the `Arc`.
    ///
    /// # Errors
    ///
    /// If the file is not one, or does not fit, or its data has another checksum than it says, or if
    /// allocation fails: nothing has changed then. All data is looked at before the first parameter is set. If
    /// it is not the same when it is read again, because somebody else writes into the file or its disk
    /// fails, the parameters that were set are set back. What they were is kept in a temporary file
    /// meanwhile, or in memory if it is less than 1 MiB or if there is no place for such a file. If that
    /// cannot be read again either, the error says so.
    pub fn load_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        // Memory has no path, and nothing that it could refuse.
        self.read(Cursor::new(bytes), Path::new(""))
    }

    fn read(&mut self, source: impl Read + Seek, path: &Path) -> Result<()> {
        self.check_sections()?;
        let mut archive = Archive::open(source, path)?;
        let loaded = self
            .sections
            .iter()
            .map(|(section, content)| content.read(section, &self.choice, &mut archive))
            .collect::<Result<Vec<Loaded>>>()?;
        if !self.choice.ignore_others {
            self.check_no_others(archive.not_read())?;
        }
        self.check_generators(&loaded)?;
        self.commit(loaded, &mut archive)
    }

    /// That sections cannot be confused.
    fn check_sections(&self) -> Result<()> {
        let mut seen = BTreeSet::new();
        for (section, _) in &self.sections {
            let alone = !section.is_empty() || self.sections.len() == 1;
            if !alone || section.contains('.') || !seen.insert(section) {
                let section = section.clone();
                return Err(CheckpointError::Section { section }.into());
            }
        }
        Ok(())
    }

    /// That none of these names of the file, for which no section asked, is in one.
    fn check_no_others(&self, mut names: impl Iterator<Item = String>) -> Result<()> {
        let within: Vec<String> = self
            .sections
            .iter()
            .map(|(section, _)| join(section, ""))
            .collect();
        match names.find(|name| within.iter().any(|within| name.starts_with(within))) {
            Some(name) => Err(CheckpointError::Unexpected { name }.into()),
            None => Ok(()),
        }
    }

    /// That the file says one thing of a generator that it has under several names.
    fn check_generators(&self, loaded: &[Loaded]) -> Result<()> {
        let mut found: Vec<(&Generator, String, GeneratorState)> = Vec::new();
        for ((section, content), loaded) in self.sections.iter().zip(loaded) {
            let Loaded::Generators(states) = loaded else {
                continue;
            };
            for ((name, generator), &state) in content.generators().into_iter().zip(states) {
                let second = join(section, name);
                match found.iter().find(|(other, ..)| ptr::eq(*other, generator)) {
                    Some((_, first, before)) if *before != state => {
                        let first = first.clone();
                        return Err(CheckpointError::Tied { first, second }.into());
                    }
                    Some(_) => {}
                    None => found.push((generator, second, state)),
                }
            }
        }
        Ok(())
    }

    /// Sets everything. What may be refused comes first, and is undone if something is.
    fn commit(
        &mut self,
        loaded: Vec<Loaded>,
        archive: &mut Archive<impl Read + Seek>,
    ) -> Result<()> {
        let lengths = loaded.iter().flat_map(|loaded| match loaded {
            Loaded::Parameters(found) => found.as_slice(),
            _ => &[],
        });
        let mut room = reserved(lengths.map(|(_, found)| found.length).max().unwrap_or(0))?;
        let mut undo: Vec<(&mut &'a mut dyn Optimizer, OptimizerState)> = Vec::new();
        let mut rest = Vec::new();
        let mut outcome = Ok(());
        for ((_, content), loaded) in self.sections.iter_mut().zip(loaded) {
            match (content, loaded) {
                (Section::Optimizer(optimizer), Loaded::Optimizer(state)) => {
                    let before = optimizer.state();
                    if outcome.is_ok() {
                        outcome = optimizer.set_state(state);
                    }
                    undo.push((optimizer, before));
                }
                (content, loaded) => rest.push((content, loaded)),
            }
        }
        let targets = rest
            .iter()
            .flat_map(|(content, loaded)| match (content, loaded) {
                (Section::Parameters(parameters), Loaded::Parameters(found)) => {
                    let targets = found.iter().map(|(at, found)| (&parameters[*at].1, found));
                    targets.collect()
                }
                _ => Vec::new(),
            });
        let targets: Vec<(&Tensor, &Found)> = targets.collect();
        let bytes = |(tensor, _): &(&Tensor, _)| tensor.numel() * tensor.dtype().size();
        let mut before = Undo::new(targets.iter().map(bytes).sum());
        for (tensor, found) in targets {
            outcome = outcome.and_then(|()| {
                archive.read_into(found, &mut room)?;
                let before = before.as_mut().map_err(|error| error.clone())?;
                before.keep(tensor)?;
                no_grad(|| tensor.assign_le_bytes(&room, found.dtype))?;
                Ok(())
            });
        }
        if let Err(error) = outcome {
            let parameters = before.and_then(|before| before.undo(&mut room));
            for (optimizer, before) in undo {
                optimizer.set_state(before)?;
            }
            parameters?;
            return Err(error);
        }
        for (content, loaded) in rest {
            match (content, loaded) {
                (content, Loaded::Generators(states)) => {
                    for ((_, generator), state) in content.generators().into_iter().zip(states) {
                        generator.set_state(state);
                    }
                }
                (Section::Counter(counter), Loaded::Counter(count)) => **counter = count,
                (Section::Batches(batches), Loaded::Batches(state)) => batches.set_state(state)?,
                _ => {}
            }
        }
        Ok(())
    }
}

/// Finds the parameters of a section, those that are one tensor together.
fn find_parameters(
    parameters: &[(String, Tensor)],
    section: &str,
    choice: &Choice<'_>,
    archive: &mut Archive<impl Read + Seek>,
) -> Result<Vec<(usize, Found)>> {
    let taken = parameters.iter().enumerate();
    let taken = taken.filter(|(_, (name, _))| choice.takes(name));
    // The names in the file of each tensor.
    let mut tensors: Vec<(usize, Vec<String>)> = Vec::new();
    for (at, (name, parameter)) in taken {
        let path = choice.path(section, name);
        let same = |(first, _): &&mut (usize, _)| parameters[*first].1.same_elements(parameter);
        match tensors.iter_mut().find(same) {
            Some((_, paths)) => paths.push(path),
            None => tensors.push((at, vec![path])),
        }
    }
    let mut all = Vec::new();
    for (at, paths) in tensors {
        let parameter = &parameters[at].1;
        check_writable("checkpoint", parameter)?;
        let there: Vec<&String> = paths.iter().filter(|path| archive.has(path)).collect();
        let Some(&first) = there.first() else {
            let name = paths[0].clone();
            return Err(CheckpointError::Missing { name }.into());
        };
        let mut find =
            |name: &str| archive.find(name, parameter.shape(), parameter.dtype(), choice.convert);
        let found = find(first)?;
        for &second in &there[1..] {
            let other = find(second)?;
            if (other.dtype, other.checksum) != (found.dtype, found.checksum) {
                let (first, second) = (first.clone(), second.clone());
                return Err(CheckpointError::Tied { first, second }.into());
            }
        }
        all.push((at, found));
    }
    Ok(all)
}

impl Section<'_> {
    /// Its generators, by their names in it.
    fn generators(&self) -> Vec<(&str, &Generator)> {
        match self {
            Self::Generators(generators) => generators
                .iter()
                .map(|(name, generator)| (name.as_str(), &**generator))
                .collect(),
            Self::Generator(generator) => vec![(GENERATOR, *generator)],
            _ => Vec::new(),
        }
    }

    /// What the file says of this section.
    fn read(
        &self,
        section: &str,
        choice: &Choice<'_>,
        archive: &mut Archive<impl Read + Seek>,
    ) -> Result<Loaded> {
        let state = |archive: &mut Archive<_>, name: &str| {
            let [seed, offset] = archive.words(&join(section, name))?;
            Ok(GeneratorState { seed, offset })
        };
        match self {
            Self::Parameters(parameters) => {
                find_parameters(parameters, section, choice, archive).map(Loaded::Parameters)
            }
            Self::Generators(_) | Self::Generator(_) => self
                .generators()
                .into_iter()
                .map(|(name, _)| state(archive, name))
                .collect::<Result<_>>()
                .map(Loaded::Generators),
            Self::Counter(_) => {
                let [count] = archive.words(&join(section, COUNTER))?;
                Ok(Loaded::Counter(count))
            }
            Self::Batches(batches) => {
                let words = archive.words(&join(section, BATCHES))?;
                let [seed, epoch, position, examples] = words;
                let state = BatchesState {
                    seed,
                    epoch,
                    position,
                    examples,
                };
                // Refused before anything changes.
                (**batches).clone().set_state(state)?;
                Ok(Loaded::Batches(state))
            }
            Self::Optimizer(optimizer) => {
                read_optimizer(&**optimizer, section, archive).map(Loaded::Optimizer)
            }
        }
    }
}

fn read_optimizer(
    optimizer: &dyn Optimizer,
    section: &str,
    archive: &mut Archive<impl Read + Seek>,
) -> Result<OptimizerState> {
    let mut hyperparameters = Vec::new();
    for (name, _) in optimizer.state().hyperparameters {
        let number = archive.number(&join(section, &name))?;
        hyperparameters.push((name, number));
    }
    let mut parameters = Vec::new();
    for (name, parameter) in optimizer.named_parameters() {
        let path = join(section, &name);
        let [steps] = archive.words(&join(&path, STEPS))?;
        // Nothing is kept before the first step.
        let fields = match steps {
            0 => Vec::new(),
            _ => optimizer.state_names_of(&name, &hyperparameters)?,
        };
        let dtype = parameter.dtype().arithmetic();
        let tensors = fields
            .into_iter()
            .map(|field| {
                let tensor = archive.tensor(&join(&path, field), parameter.shape(), dtype)?;
                Ok((field.to_owned(), tensor))
            })
            .collect::<Result<_>>()?;
        parameters.push(ParameterState {
            name,
            steps,
            tensors,
        });
    }
    Ok(OptimizerState {
        hyperparameters,
        parameters,
    })
}

/// The entry of a section that is one generator.
const GENERATOR: &str = "generator";

/// The entry of a section that is a counter.
const COUNTER: &str = "counter";

/// The entry of a section that is a place in batches.
const BATCHES: &str = "batches";

/// The entry of the number of steps of a parameter.
const STEPS: &str = "steps";

/// A name below another, which may be empty.
fn join(above: &str, name: &str) -> String {
    if above.is_empty() {
        name.to_owned()
    } else {
        format!("{above}.{name}")
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, SeekFrom};

    use super::*;
    use crate::optim::Sgd;
    use crate::{Linear, Sequential};

    /// A file that fails, or has other bytes, once so many bytes were read.
    struct Fails {
        file: Cursor<Vec<u8>>,
        left: usize,
        flips: bool,
    }

    impl Read for Fails {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let count = self.file.read(out)?;
            if count > self.left {
                if !self.flips {
                    return Err(io::Error::other("on purpose"));
                }
                out[self.left.min(count - 1)] ^= 1;
            }
            self.left = self.left.saturating_sub(count);
            Ok(count)
        }
    }

    impl Seek for Fails {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            self.file.seek(to)
        }
    }

    /// Of a width beyond what is kept in memory, and of a few numbers.
    #[test]
    fn a_load_that_fails_half_way_is_undone() {
        for (width, points) in [(3, 60), (400, 8)] {
            let net = |seed| {
                let linear = || Linear::new(width, width, &Generator::new(seed)).unwrap();
                let net = Sequential::new().with(linear()).with(linear());
                let sgd = Sgd::new(net.named_parameters(), seed as f64).unwrap();
                (net, sgd)
            };
            let (saved, mut sgd) = net(1);
            let file = Checkpoint::new()
                .optimizer("sgd", &mut sgd)
                .parameters("net", &saved);
            let file = file.to_bytes().unwrap();
            let (target, mut sgd) = net(2);
            let mut checkpoint = Checkpoint::new()
                .optimizer("sgd", &mut sgd)
                .parameters("net", &target);
            let before = checkpoint.to_bytes().unwrap();
            let mut failed = 0;
            for point in 0..points {
                for flips in [false, true] {
                    let source = Fails {
                        file: Cursor::new(file.clone()),
                        left: point * 2 * file.len() / points,
                        flips,
                    };
                    if checkpoint.read(source, Path::new("a file")).is_err() {
                        failed += 1;
                        assert!(checkpoint.to_bytes().unwrap() == before, "{width}, {point}");
                    } else {
                        // Beyond the last byte that is read.
                        checkpoint.load_bytes(&before).unwrap();
                    }
                }
            }
            assert!(failed > points, "{failed} of {points}");
            checkpoint.load_bytes(&file).unwrap();
            assert!(checkpoint.to_bytes().unwrap() == file);
        }
    }
}
