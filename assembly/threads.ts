/**
 * Threads that run one program side by side. Each is an instance of this module on one shared memory; what they share
 * is the control block below (a cache line each for the barrier and for the job), whose address the host hands to
 * `setup`.
 *
 *   +0 arrived · +4 generation · +8 sleepers        the barrier
 *   +64 job · +68 sleepers                           where idle workers park; a job is its number and, below, its threads
 *   +128 code · +132 slots · +136 scratch · +140 scratch bytes of one thread · +144 stop
 *   +192 waits                                       at barriers, longer than a thread spins
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
const WAITS: usize = 192

/** Bits of a job that say how many threads take part in it. */
const COUNT_BITS: i32 = 8
const COUNT_MASK: i32 = (1 << COUNT_BITS) - 1

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

/** Returns true if the word at `at` differs from `old` before a waiting thread should sleep. */
function spin(at: usize, old: i32): bool {
  if (ASC_FEATURE_THREADS) {
    for (let i = 0; i < SPINS; i++) if (atomic.load<i32>(at) != old) return true
  }
  return false
}

/** Returns once the word at `at` differs from `old`; sleeps meanwhile where this thread may. */
function sleep(at: usize, old: i32, sleepers: usize): void {
  if (ASC_FEATURE_THREADS) {
    if (mayWait) {
      atomic.add<i32>(sleepers, 1)
      while (atomic.load<i32>(at) == old) atomic.wait<i32>(at, old, -1)
      atomic.sub<i32>(sleepers, 1)
    } else {
      while (atomic.load<i32>(at) == old) {}
    }
  }
}

/** Gives the word at `at` another value and wakes whoever sleeps on it. */
function change(at: usize, value: i32, sleepers: usize): void {
  if (ASC_FEATURE_THREADS) {
    atomic.store<i32>(at, value)
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
      change(control + GENERATION, generation + 1, control + SLEEPERS)
    } else if (!spin(control + GENERATION, generation)) {
      atomic.add<i32>(control + WAITS, 1)
      sleep(control + GENERATION, generation, control + SLEEPERS)
    }
  }
}

/** How often, since the machine began, a thread has waited at a barrier for longer than it spins. */
export function waits(): i32 {
  return ASC_FEATURE_THREADS ? atomic.load<i32>(control + WAITS) : 0
}

/** Wakes the workers for the program named in the control block, on which `count` threads work. */
export function post(count: i32): void {
  if (ASC_FEATURE_THREADS) {
    const job = atomic.load<i32>(control + JOB)
    change(control + JOB, (((job >>> COUNT_BITS) + 1) << COUNT_BITS) | count, control + PARKED)
  }
}

/**
 * Waits until another job than `last` is posted; 0 when the host asked the workers to leave. A worker that took no part
 * in the last one does not spin: it is not expected soon.
 */
export function nextJob(last: i32): i32 {
  if (ASC_FEATURE_THREADS) {
    if (me >= threadsOf(last) || !spin(control + JOB, last)) sleep(control + JOB, last, control + PARKED)
    return load<i32>(control + STOP) == 0 ? atomic.load<i32>(control + JOB) : 0
  }
  return 0
}

/** How many threads work on a job. One that takes part knows that no other was posted meanwhile: it cannot end without it. */
@inline
export function threadsOf(job: i32): i32 {
  return job & COUNT_MASK
}

/** Makes every parked worker return to its host. */
export function stop(): void {
  store<i32>(control + STOP, 1)
  post(1)
}
