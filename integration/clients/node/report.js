// One line per check: `pass NAME SECONDS` or `fail NAME: WHY`.
import { isDeepStrictEqual, inspect } from 'node:util'

export class Report {
  failed = 0

  async check(name, run) {
    const began = performance.now()
    try {
      await run()
      console.log(`pass ${name} ${((performance.now() - began) / 1000).toFixed(1)}`)
    } catch (why) {
      this.failed++
      if (process.env.FIRN_SUITE_TRACE) console.error(why)
      console.log(`fail ${name}: ${String(why).replace(/\s+/g, ' ').slice(0, 600)}`)
    }
  }
}

export function same(what, got, want) {
  if (!isDeepStrictEqual(got, want)) throw new Error(`${what}: got ${inspect(got)}, want ${inspect(want)}`)
}

/** Polls until the probe gives something true; fails after `seconds`. */
export async function until(what, seconds, probe) {
  const end = performance.now() + seconds * 1000
  for (;;) {
    const found = await probe()
    if (found) return found
    if (performance.now() > end) throw new Error(`not within ${seconds} s: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

/** The error that a call must end in, by its Kafka name. */
export async function refused(type, call) {
  try {
    await call()
  } catch (why) {
    const types = [why, why.cause, ...(why.errors ?? [])].map((e) => e?.type)
    if (!types.includes(type)) throw new Error(`got ${types}: ${why}, want ${type}`)
    return
  }
  throw new Error(`was accepted, want ${type}`)
}
