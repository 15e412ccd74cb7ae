/**
 * Makes the limit of `mixtrain verify` one of CPU time, so that a decision on a busy machine ends where it would on a quiet one:
 *
 *     node --import ./dist/bench/cpu-clock.js dist/src/cli/main.js benchmark instances.csv --timeout 60 --threads 1
 *
 * The list runner starts each instance with the same arguments. It waits for it by the clock on the wall, so it is given more of that.
 */
const [PATIENCE, LONG] = [60, 15000]

if (process.argv[2] === 'verify')
  performance.now = () => {
    const { user, system } = process.cpuUsage()
    return (user + system) / 1000
  }

const timer = globalThis.setTimeout
globalThis.setTimeout = ((then: () => void, ms = 0) => timer(then, ms > LONG ? PATIENCE * ms : ms)) as typeof setTimeout

export {}
