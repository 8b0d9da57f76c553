//! The near levels that come with the library, under the suite that is for all.

use scatterhoard_client::level::near::{Fronted, Moka, Quick, suite};

macro_rules! suites {
    ($($level:ident: $make:expr;)*) => {
        $(mod $level {
            use super::*;

            #[test]
            fn keeps_what_it_is_given() { suite::keeps_what_it_is_given($make) }

            #[test]
            fn agrees_with_a_map() { suite::agrees_with_a_map($make) }

            #[test]
            fn stays_within_its_bytes() { suite::stays_within_its_bytes($make) }

            #[test]
            fn keeps_what_is_used() { suite::keeps_what_is_used($make) }

            #[test]
            fn never_goes_back() { suite::never_goes_back($make) }

            #[test]
            fn removes_only_this() { suite::removes_only_this($make) }
        })*
    };
}

suites! {
    moka: Moka::with_bytes_max;
    quick: Quick::with_bytes_max;
    moka_with_fronts: |bytes| Fronted::new(Moka::with_bytes_max(bytes), bytes / 64);
    quick_with_fronts: |bytes| Fronted::new(Quick::with_bytes_max(bytes), bytes / 64);
}

/// Levels that do not do what they must, for which the suite has to panic.
mod broken {
    use std::collections::HashMap;
    use std::sync::Arc;

    use parking_lot::Mutex;
    use scatterhoard_client::level::near::{Held, Holds, Kept, NearLevel, suite};

    type Copies = HashMap<u64, Arc<Kept<u64>>>;

    /// A map that is never full, and removes a copy in the way that is given.
    struct Map {
        copies: Mutex<Copies>,
        remove_this: fn(&Mutex<Copies>, u64, &Arc<Kept<u64>>),
    }

    impl Map {
        fn removing(remove_this: fn(&Mutex<Copies>, u64, &Arc<Kept<u64>>)) -> Self {
            Self { copies: Mutex::default(), remove_this }
        }
    }

    fn rightly(copies: &Mutex<Copies>, key: u64, copy: &Arc<Kept<u64>>) {
        let mut copies = copies.lock();
        if copies.get(&key).is_some_and(|found| Arc::ptr_eq(found, copy)) {
            copies.remove(&key);
        }
    }

    fn in_two_steps(copies: &Mutex<Copies>, key: u64, copy: &Arc<Kept<u64>>) {
        let found = copies.lock().get(&key).cloned();
        if found.is_some_and(|found| Arc::ptr_eq(&found, copy)) {
            std::thread::yield_now();
            copies.lock().remove(&key);
        }
    }

    impl NearLevel<u64, u64> for Map {
        fn look(&self, key: &u64) -> Option<Held<u64>> {
            self.copies.lock().get(key).cloned().map(Held::from)
        }

        fn keep(&self, key: u64, copy: Arc<Kept<u64>>) {
            self.copies.lock().insert(key, copy);
        }

        fn remove(&self, key: &u64) {
            self.copies.lock().remove(key);
        }

        fn remove_this(&self, key: &u64, copy: &Arc<Kept<u64>>) {
            (self.remove_this)(&self.copies, *key, copy);
        }

        fn clear(&self) {
            self.copies.lock().clear();
        }

        fn holds(&self) -> Holds {
            let copies = self.copies.lock();
            let bytes = copies.values().map(|copy| u64::from(copy.weight)).sum();
            Holds { count: copies.len() as u64, bytes, evicted_count: 0 }
        }
    }

    #[test]
    fn a_map_does_all_but_stay_within_its_bytes() {
        suite::keeps_what_it_is_given(|_| Map::removing(rightly));
        suite::agrees_with_a_map(|_| Map::removing(rightly));
        suite::never_goes_back(|_| Map::removing(rightly));
        suite::removes_only_this(|_| Map::removing(rightly));
    }

    #[test]
    #[should_panic(expected = "bytes are alive")]
    fn one_that_is_never_full_is_found_out() {
        suite::stays_within_its_bytes(|_| Map::removing(rightly));
    }

    #[test]
    #[should_panic(expected = "another copy than the one to be removed stays")]
    fn one_that_removes_any_copy_is_found_out() {
        suite::keeps_what_it_is_given(|_| {
            Map::removing(|copies, key, _| drop(copies.lock().remove(&key)))
        });
    }

    #[test]
    #[should_panic(expected = "a scoped thread panicked")]
    fn one_that_looks_before_it_removes_is_found_out() {
        suite::removes_only_this(|_| Map::removing(in_two_steps));
    }
}
