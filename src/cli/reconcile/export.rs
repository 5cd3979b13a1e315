//! Writes what was found to a file.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use super::report::{action_name, condition_name, line_to_json, verdict_name};
use crate::{
    cli::exit::{Exit, Failure},
    proto::v1 as pb,
};

const COLUMNS: [&str; 11] = [
    "sku",
    "location",
    "condition",
    "stated",
    "book",
    "variance",
    "verdict",
    "action",
    "line",
    "reason",
    "correction",
];

/// Lines on their way into a file, or nowhere.
pub(super) struct Export {
    path: PathBuf,
    form: Form,
}

enum Form {
    Nowhere,
    Csv(Box<csv::Writer<File>>),
    /// One array, and whether it has any element; or one object a line.
    Json(BufWriter<File>, Option<bool>),
}

impl Export {
    /// Begins to write to a file, if one is named.
    ///
    /// # Errors
    /// If its form does not follow from its name, or it cannot be written.
    pub(super) fn to(path: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = path else {
            return Ok(Self {
                path: PathBuf::new(),
                form: Form::Nowhere,
            });
        };
        let name = path.to_string_lossy().to_ascii_lowercase();
        let create = || File::create(path).map_err(|error| cannot_write(path, &error));
        let mut form = if name.ends_with(".csv") {
            Form::Csv(Box::new(csv::Writer::from_writer(create()?)))
        } else if name.ends_with(".ndjson") || name.ends_with(".jsonl") {
            Form::Json(BufWriter::new(create()?), None)
        } else if name.ends_with(".json") {
            Form::Json(BufWriter::new(create()?), Some(false))
        } else {
            let failure = Failure::usage(format!(
                "the form of {} does not follow from its name",
                path.display()
            ));
            return Err(failure.hint("name it .csv, .json or .ndjson"));
        };
        let begun = match &mut form {
            Form::Csv(writer) => writer.write_record(COLUMNS).map_err(std::io::Error::from),
            Form::Json(file, Some(_)) => file.write_all(b"["),
            _ => Ok(()),
        };
        begun.map_err(|error| cannot_write(path, &error))?;
        let path = path.to_owned();
        Ok(Self { path, form })
    }

    /// Writes a line.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn add(&mut self, line: &pb::ReportLine) -> Result<(), Failure> {
        let written = match &mut self.form {
            Form::Nowhere => Ok(()),
            Form::Csv(writer) => writer
                .write_record([
                    line.sku.as_str(),
                    &line.location,
                    condition_name(line.condition()),
                    &line.stated.to_string(),
                    &line.book.to_string(),
                    &line.variance.to_string(),
                    verdict_name(line.verdict()),
                    action_name(line.action()),
                    &line.line.to_string(),
                    &line.reason,
                    &line.correction,
                ])
                .map_err(std::io::Error::from),
            Form::Json(file, None) => writeln!(file, "{}", line_to_json(line)),
            Form::Json(file, Some(any)) => {
                let separator = if std::mem::replace(any, true) {
                    ",\n"
                } else {
                    ""
                };
                write!(file, "{separator}{}", line_to_json(line))
            }
        };
        written.map_err(|error| cannot_write(&self.path, &error))
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn finish(self) -> Result<(), Failure> {
        let written = match self.form {
            Form::Nowhere => Ok(()),
            Form::Csv(mut writer) => writer.flush(),
            Form::Json(mut file, array) => {
                let end = array.map_or("", |_| "]\n");
                file.write_all(end.as_bytes()).and_then(|()| file.flush())
            }
        };
        written.map_err(|error| cannot_write(&self.path, &error))
    }
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Failure {
    let message = format!("cannot write {}: {error}", path.display());
    Failure::new(Exit::Failed, message)
}
