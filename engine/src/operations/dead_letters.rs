//! Handlers of the operations on dead letters.

use heddle_api::Input;
use heddle_api::dead_letters::{Letter, ListLetters, Page, ReplayLetters, Replayed, ShowLetter};

use super::{Call, Handler, OperationError, Operations};

impl Handler for ListLetters {
    type Subject = ();

    async fn run(
        operations: &Operations,
        _: Call<'_>,
        input: Input<Self>,
        (): (),
    ) -> Result<Page, OperationError> {
        Ok(operations.dead_letters.list(&input.query).await?)
    }
}

impl Handler for ShowLetter {
    type Subject = ();

    async fn run(
        operations: &Operations,
        _: Call<'_>,
        input: Input<Self>,
        (): (),
    ) -> Result<Letter, OperationError> {
        Ok(operations.dead_letters.show(input.path.id).await?)
    }
}

impl Handler for ReplayLetters {
    type Subject = ();

    async fn run(
        operations: &Operations,
        _: Call<'_>,
        input: Input<Self>,
        (): (),
    ) -> Result<Replayed, OperationError> {
        Ok(operations.dead_letters.replay(&input.body).await?)
    }
}
