import { conv, convScratch, convShared } from './conv'
import { groupConv, groupConvInput, groupConvWeight } from './conv-group'
import { convWeight, convWeightScratch, convWeightShared } from './conv-weight'
import { argmax, compact, gather, scatterAdd, scatterInto } from './gather'
import { address, fillRow, share, word } from './lanes'
import { loop, loopScratch, loopShared, loops, loopsScratch } from './loop'
import { matmul, matmulScratch } from './matmul'
import {
  barrier,
  block,
  CODE,
  nextJob,
  post,
  SCRATCH,
  SCRATCH_BYTES,
  SLOTS,
  threadCount,
  threadId,
  threadsOf,
} from './threads'
import { fold, unfold } from './window'
import { Fill, Header, Moving, Opcode, Repeat } from './words'

/**
 * The interpreter: one call runs a whole program. Every thread walks the same instructions; one whose work is small is
 * done by thread 0 alone, the others walk past it. A barrier stands before and after each shared instruction, none
 * between small ones.
 */

/**
 * Work below which the others cost more than they save: some 10 us of a loop, whose unit is an element of an operation,
 * or of a product or convolution, whose unit is one of many multiply-adds per element.
 */
const LIGHT: i32 = 1 << 15
const DENSE: i32 = 1 << 18

/** Whether all threads share the instruction. */
@inline
function isShared(ip: usize): bool {
  const op = word(ip, Header.opcode)
  const dense = op >= Opcode.groupConv2d || (op >= Opcode.matmul && op <= Opcode.conv2dWeight)
  return word(ip, Header.work) >= (dense ? DENSE : LIGHT)
}

function fill(ip: usize, slots: usize, id: i32, count: i32): void {
  const n = word(ip, Fill.n)
  const first = share(n, id, count)
  const out = address(ip, Fill.out, slots) + ((<usize>(word(ip, Fill.offset) + first)) << 2)
  fillRow(out, f32x4.splat(reinterpret<f32>(word(ip, Fill.bits))), share(n, id + 1, count) - first)
}

/** Thread `id` of `count` does its part of the instruction at ip. */
function step(ip: usize, slots: usize, id: i32, count: i32, scratch: usize, shared: usize): void {
  switch (word(ip, Header.opcode)) {
    case Opcode.loop:
      loop(ip, slots, id, count, scratch, shared)
      break
    case Opcode.loops:
      loops(ip, slots, id, count, scratch)
      break
    case Opcode.fill:
      fill(ip, slots, id, count)
      break
    case Opcode.matmul:
      matmul(ip, slots, id, count, scratch)
      break
    case Opcode.conv2d:
    case Opcode.conv2dInput:
      conv(ip, slots, id, count, scratch, shared)
      break
    case Opcode.conv2dWeight:
      convWeight(ip, slots, id, count, scratch, shared)
      break
    case Opcode.groupConv2d:
      groupConv(ip, slots, id, count)
      break
    case Opcode.groupConv2dInput:
      groupConvInput(ip, slots, id, count)
      break
    case Opcode.groupConv2dWeight:
      groupConvWeight(ip, slots, id, count)
      break
    case Opcode.gather:
      gather(ip, slots, id, count)
      break
    case Opcode.scatterAdd:
      scatterAdd(ip, slots, id, count)
      break
    case Opcode.scatterInto:
      scatterInto(ip, slots, id, count)
      break
    case Opcode.argmax:
      argmax(ip, slots, id, count)
      break
    case Opcode.compact:
      compact(ip, slots, id)
      break
    case Opcode.unfold:
      unfold(ip, slots, id, count)
      break
    case Opcode.fold:
      fold(ip, slots, id, count)
      break
    default:
      unreachable()
  }
}

/** Rounds that the `repeat` at ip asks for. */
function roundsOf(ip: usize, slots: usize): i32 {
  const n = load<f32>(address(ip, Repeat.count, slots))
  const per = word(ip, Repeat.per)
  const most = word(ip, Repeat.most)
  if (n <= 0) return 0
  return n <= <f32>(most - 1) * <f32>per ? (<i32>ceil<f32>(n) + per - 1) / per : most
}

/** The `end` that matches the `repeat` at ip. */
function endOf(ip: usize): usize {
  let open = 1
  while (open > 0) {
    ip += (<usize>word(ip, Header.length)) << 2
    const op = word(ip, Header.opcode)
    if (op == Opcode.repeat) open++
    if (op == Opcode.end) open--
  }
  return ip
}

/** Puts the slots that move with the rounds of the `repeat` at ip where they are in round r. */
function moveSlots(ip: usize, slots: usize, r: i32): void {
  const n = word(ip, Header.length)
  for (let i: i32 = Repeat.end; i < n; i += Moving.end) {
    const offset = <usize>word(ip, i + Moving.at) + <usize>r * <usize>word(ip, i + Moving.stride)
    store<usize>(slots + ((<usize>word(ip, i + Moving.slot)) << 2), address(ip, i + Moving.store, slots) + (offset << 2))
  }
}

/** The rounds of a `repeat`; all threads have passed a barrier before, and pass one after each round. */
function rounds(ip: usize, slots: usize, id: i32, count: i32, scratch: usize, shared: usize): void {
  const n = roundsOf(ip, slots)
  const at = address(ip, Repeat.round, slots)
  for (let r = 0; r < n; r++) {
    if (id == 0) {
      store<f32>(at, <f32>r)
      moveSlots(ip, slots, r)
    }
    barrier(count)
    walk(ip + ((<usize>word(ip, Header.length)) << 2), slots, id, count, scratch, shared)
    barrier(count)
  }
}

function walk(ip: usize, slots: usize, id: i32, count: i32, scratch: usize, shared: usize): void {
  let shareable = false
  let first = true
  while (word(ip, Header.opcode) != Opcode.halt && word(ip, Header.opcode) != Opcode.end) {
    if (word(ip, Header.opcode) == Opcode.repeat) {
      if (!first) barrier(count)
      rounds(ip, slots, id, count, scratch, shared)
      ip = endOf(ip)
      first = true
    } else if (count == 1) {
      step(ip, slots, 0, 1, scratch, shared)
    } else {
      const wide = isShared(ip)
      if (!first && (wide || shareable)) barrier(count)
      if (wide) step(ip, slots, id, count, scratch, shared)
      else if (id == 0) step(ip, slots, 0, 1, scratch, shared)
      shareable = wide
      first = false
    }
    ip += (<usize>word(ip, Header.length)) << 2
  }
}

/** Runs the program at `code` on the first `count` threads; one of which no instruction is shared (`isWide`) wants one. */
export function run(code: usize, slots: usize, scratch: usize, scratchBytes: i32, count: i32): void {
  const shared = scratch + <usize>threadCount() * <usize>scratchBytes
  if (count > 1) {
    const control = block()
    store<usize>(control + CODE, code)
    store<usize>(control + SLOTS, slots)
    store<usize>(control + SCRATCH, scratch)
    store<i32>(control + SCRATCH_BYTES, scratchBytes)
    post(count)
  }
  walk(code, slots, 0, count, scratch, shared)
  barrier(count)
}

/** The life of a worker: takes part in the programs that want it until it is told to stop. */
export function park(): void {
  const id = threadId()
  const total = threadCount()
  let job = 0
  while ((job = nextJob(job)) != 0) {
    const count = threadsOf(job)
    if (id >= count) continue
    const control = block()
    const scratch = load<usize>(control + SCRATCH)
    const bytes = <usize>load<i32>(control + SCRATCH_BYTES)
    walk(
      load<usize>(control + CODE),
      load<usize>(control + SLOTS),
      id,
      count,
      scratch + <usize>id * bytes,
      scratch + <usize>total * bytes,
    )
    barrier(count)
  }
}

/** The first byte of memory that the machine does not use itself. */
export function heapBase(): usize {
  return __heap_base
}

/** Whether any instruction of the program is worth sharing. */
export function isWide(ip: usize): bool {
  while (word(ip, Header.opcode) != Opcode.halt) {
    if (isShared(ip)) return true
    ip += (<usize>word(ip, Header.length)) << 2
  }
  return false
}

/** Bytes of scratch that each thread needs for the program. */
export function scratchOf(ip: usize): i32 {
  let most = 0
  while (word(ip, Header.opcode) != Opcode.halt) {
    const op = word(ip, Header.opcode)
    let bytes = 0
    if (op == Opcode.loop) bytes = loopScratch(ip)
    else if (op == Opcode.loops) bytes = loopsScratch(ip)
    else if (op == Opcode.matmul) bytes = matmulScratch(ip)
    else if (op == Opcode.conv2d || op == Opcode.conv2dInput) bytes = convScratch(ip)
    else if (op == Opcode.conv2dWeight) bytes = convWeightScratch(ip)
    most = max(most, bytes)
    ip += (<usize>word(ip, Header.length)) << 2
  }
  return (most + 255) & ~255
}

/** Bytes of scratch that the threads share for the program. */
export function sharedOf(ip: usize): i32 {
  let most = 0
  while (word(ip, Header.opcode) != Opcode.halt) {
    const op = word(ip, Header.opcode)
    let bytes = 0
    if (op == Opcode.loop) bytes = loopShared(ip)
    else if (op == Opcode.conv2d || op == Opcode.conv2dInput) bytes = convShared(ip)
    else if (op == Opcode.conv2dWeight) bytes = convWeightShared(ip)
    most = max(most, bytes)
    ip += (<usize>word(ip, Header.length)) << 2
  }
  return (most + 255) & ~255
}
