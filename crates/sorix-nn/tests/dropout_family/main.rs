//! Every form of dropout. A form is a row of a [table](forms); the tests go through the rows.

mod corners;
mod forms;
mod shards;
mod statistics;
mod values;
