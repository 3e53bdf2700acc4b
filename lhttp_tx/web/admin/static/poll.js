// Calls a function repeatedly while the page is visible.

/** Wait some seconds, or until the signal is aborted. */
function wait(seconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(done, seconds * 1000);
    function done() {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    }
    signal.addEventListener("abort", done);
  });
}

/** Wait until the page is visible, or the signal is aborted. */
function seen(signal) {
  if (!document.hidden || signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    function look() {
      if (document.hidden && !signal.aborted) return;
      document.removeEventListener("visibilitychange", look);
      signal.removeEventListener("abort", look);
      resolve();
    }
    document.addEventListener("visibilitychange", look);
    signal.addEventListener("abort", look);
  });
}

/**
 * Call a function now, and again some seconds after the end of each call, until the signal is aborted. It is not called
 * while the page is hidden. failed is called with the error of each call, or with null after a success. After an error,
 * the next call comes later.
 */
export async function poll(call, seconds, signal, failed) {
  let troubles = 0;
  while (!signal.aborted) {
    try {
      await call();
      if (signal.aborted) return;
      troubles = 0;
      failed(null);
    } catch (error) {
      if (signal.aborted) return;
      troubles = Math.min(troubles + 1, 4);
      failed(error);
      if (error.status === 401) return;
    }
    await wait(seconds * 2 ** troubles, signal);
    await seen(signal);
  }
}
