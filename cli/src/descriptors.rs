//! Every connection takes a file descriptor: asks the system for as many as it gives, and fits the number
//! of clients to them.

use std::io;

use rlimit::Resource;
use scatterhoard_node::Config;
use tracing::warn;

/// Descriptors that are not for clients: four ports, 64 connections to `--http`, the runtime, and two
/// connections each way for 45 peers. A larger cluster needs a limit that leaves it more.
const RESERVED_COUNT: usize = 256;

/// Why no clients can be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DescriptorsError {
    #[error("cannot ask how many files this process may open: {0}")]
    Unknown(#[from] io::Error),
    #[error(
        "this process may open only {limit} files, and a node needs {RESERVED_COUNT} beside those of its \
         clients: raise the limit (ulimit -Hn)"
    )]
    TooFew { limit: usize },
}

/// Raises the soft limit on open files to the hard one, and lowers the number of clients to what that
/// allows, with a warning.
pub(crate) fn fit(config: Config) -> Result<Config, DescriptorsError> {
    // Where it cannot be raised it stays what it was.
    let raised = rlimit::increase_nofile_limit(u64::MAX);
    let limit = raised.or_else(|_| Resource::NOFILE.get_soft())?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let asked = config.clients_max;
    let config = within(limit, config).ok_or(DescriptorsError::TooFew { limit })?;
    if config.clients_max < asked {
        warn!(
            asked,
            clients_max = config.clients_max,
            open_files_max = limit,
            "--max-clients was lowered: the limit on open files (ulimit -Hn) allows no more"
        );
    }
    Ok(config)
}

/// The configuration with as many clients as descriptors are left for; `None` if there are none.
fn within(limit: usize, config: Config) -> Option<Config> {
    let clients_limit = limit.checked_sub(RESERVED_COUNT).filter(|&count| count > 0)?;
    let clients_max = config.clients_max.min(clients_limit);
    Some(Config { clients_max, clients_limit, ..config })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_as_many_as_asked_for_or_as_descriptors_are_left() {
        let fitted = |limit| {
            let config = Config { clients_max: 1000, ..Config::default() };
            within(limit, config).map(|config| (config.clients_max, config.clients_limit))
        };
        assert_eq!(fitted(1_048_576), Some((1000, 1_048_320)));
        assert_eq!(fitted(1256), Some((1000, 1000)));
        assert_eq!(fitted(1255), Some((999, 999)));
        assert_eq!(fitted(257), Some((1, 1)));
        assert_eq!(fitted(256), None);
        assert_eq!(fitted(0), None);
    }
}
