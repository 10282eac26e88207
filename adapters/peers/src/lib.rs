//! The dropouts of candle and burn, and sorix's in their places, as `sorix-bench` measures them.

use sorix_benches::peers::Frameworks;

mod burn;
mod burn_step;
mod candle;
mod candle_attention;
mod candle_step;

/// All that is measured here.
#[must_use]
pub fn frameworks() -> Frameworks {
    Frameworks {
        peers: vec![
            Box::new(candle::Candle),
            Box::new(candle::SorixCandle),
            Box::new(burn::Burn),
            Box::new(burn::SorixBurn),
        ],
        steps: vec![
            ("peer:candle", candle_step::step),
            ("sorix-candle", candle_step::step_with_sorix),
            ("peer:burn", burn_step::step),
            ("sorix-burn", burn_step::step_with_sorix),
        ],
        attention: vec![
            ("peer:candle", candle_attention::by_matrix),
            ("sorix-candle", candle_attention::by_sorix),
        ],
    }
}

#[cfg(test)]
mod tests {
    use sorix_benches::peers::measure_in_short;

    use super::*;

    #[test]
    fn every_framework_can_be_measured() {
        for peer in frameworks().peers {
            measure_in_short(&*peer).unwrap();
        }
    }

    #[test]
    fn every_step_can_be_taken() {
        let Frameworks {
            steps, attention, ..
        } = frameworks();
        for (name, make) in steps.into_iter().chain(attention) {
            let step = make().unwrap_or_else(|error| panic!("{name}: {error}"));
            step().unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }
}
