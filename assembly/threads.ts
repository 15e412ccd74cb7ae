/**
 * Threads that run one program side by side. Each is an instance of this module on one shared memory; what they share
 * is the control block below (a cache line each for the barrier and for the job), whose address the host hands to
 * `setup`.
 *
 *   +0 arrived · +4 generation · +8 sleepers        the barrier
 *   +64 job number · +68 sleepers                    where idle workers park
 *   +128 code · +132 slots · +136 scratch · +140 scratch bytes of one thread · +144 stop
 */
const ARRIVED: usize = 0
const GENERATION: usize = 4
const SLEEPERS: usize = 8
const JOB: usize = 64
const PARKED: usize = 68
export const CODE: usize = 128
export const SLOTS: usize = 132
export const SCRATCH: usize = 136
export const SCRATCH_BYTES: usize = 140
const STOP: usize = 144

/**
 * Loads before a waiting thread sleeps: some 50 us, about what waking it costs; then the core may have better
 * things to do.
 */
const SPINS: i32 = 100000

let control: usize = 0
let me: i32 = 0
let total: i32 = 1
let mayWait: bool = false

/** Called once per instance. `wait`: whether this thread may block (a page's main thread may not: it spins). */
export function setup(block: usize, id: i32, count: i32, wait: bool): void {
  control = block
  me = id
  total = count
  mayWait = wait
}

@inline
export function block(): usize {
  return control
}

@inline
export function threadId(): i32 {
  return me
}

@inline
export function threadCount(): i32 {
  return total
}

/** Returns once the word at `at` differs from `old`. */
function waitFor(at: usize, old: i32, sleepers: usize): void {
  if (ASC_FEATURE_THREADS) {
    for (let i = 0; i < SPINS || !mayWait; i++) if (atomic.load<i32>(at) != old) return
    atomic.add<i32>(sleepers, 1)
    while (atomic.load<i32>(at) == old) atomic.wait<i32>(at, old, -1)
    atomic.sub<i32>(sleepers, 1)
  }
}

/** Changes the word at `at` and wakes whoever sleeps on it. */
function advance(at: usize, sleepers: usize): void {
  if (ASC_FEATURE_THREADS) {
    atomic.add<i32>(at, 1)
    if (atomic.load<i32>(sleepers) != 0) atomic.notify(at, -1)
  }
}

/** Returns when all `count` threads of the running instruction have called it; nothing to do for one. */
export function barrier(count: i32): void {
  if (ASC_FEATURE_THREADS) {
    if (count == 1) return
    const generation = atomic.load<i32>(control + GENERATION)
    if (atomic.add<i32>(control + ARRIVED, 1) == count - 1) {
      atomic.store<i32>(control + ARRIVED, 0)
      advance(control + GENERATION, control + SLEEPERS)
    } else {
      waitFor(control + GENERATION, generation, control + SLEEPERS)
    }
  }
}

/** Wakes the workers for the program named in the control block. */
export function post(): void {
  advance(control + JOB, control + PARKED)
}

/** Sleeps until a job after number `last` is posted; false when the host asked the workers to leave. */
export function nextJob(last: i32): bool {
  waitFor(control + JOB, last, control + PARKED)
  return load<i32>(control + STOP) == 0
}

/** Makes every parked worker return to its host. */
export function stop(): void {
  store<i32>(control + STOP, 1)
  post()
}
