//! Lets tests stop the flow workers and let them go again. In a build without the feature `hold` there is nothing to
//! hold them with.

#[cfg(feature = "hold")]
mod switch {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    /// While on, flow workers stop before their next message.
    #[derive(Clone, Debug, Default)]
    pub struct Hold(Arc<AtomicBool>);

    impl Hold {
        /// Holds the workers, or lets them go.
        pub fn set(&self, on: bool) {
            self.0.store(on, Ordering::Release);
        }

        pub(crate) fn wait(&self) {
            while self.0.load(Ordering::Acquire) {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

#[cfg(not(feature = "hold"))]
mod switch {
    /// Holds nothing: the build is without the feature `hold`.
    #[derive(Clone, Debug, Default)]
    pub struct Hold(());

    impl Hold {
        #[inline(always)]
        pub(crate) fn wait(&self) {}
    }
}

pub use switch::Hold;
