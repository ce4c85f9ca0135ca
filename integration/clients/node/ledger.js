// The rows file, and the ledger that a consumer of it is held against.
import fs from 'node:fs'

const START = Buffer.from('{"row":')
const KEY = Buffer.from('"tailnum":')
const QUOTE = 0x22

/** The record key of a row: its tail number, or null. */
export function keyOf(line) {
  const at = line.indexOf(KEY) + KEY.length
  if (line[at] !== QUOTE) return null
  return line.subarray(at + 1, line.indexOf(QUOTE, at + 1))
}

const equal = (a, b) => (a === null || b === null ? a === b : a.equals(b))

/** Checks that each row arrives once, unchanged, and in rising order within its partition. */
export class Ledger {
  constructor(path) {
    const text = fs.readFileSync(path)
    this.lines = []
    for (let at = 0; at < text.length; ) {
      const end = text.indexOf(10, at)
      this.lines.push(text.subarray(at, end))
      at = end + 1
    }
    this.seen = new Uint8Array(this.lines.length)
    this.count = 0
    this.last = new Map()
  }

  take(partition, { offset, key, value, headers }) {
    const where = `partition ${partition} offset ${offset}`
    if (value === null || !value.subarray(0, START.length).equals(START)) throw new Error(`${where}: not a row`)
    const number = Number(value.subarray(START.length, value.indexOf(0x2c)).toString())
    if (!(number >= 0 && number < this.lines.length) || !this.lines[number].equals(value))
      throw new Error(`${where}: row ${number} is not what was produced`)
    if (!equal(key, keyOf(value))) throw new Error(`${where}: row ${number} has key ${key}`)
    if (!headers?.source?.length) throw new Error(`${where}: row ${number} lost its header`)
    if (this.seen[number]) throw new Error(`${where}: row ${number} came twice`)
    if ((this.last.get(partition) ?? -1) >= number)
      throw new Error(`${where}: row ${number} after row ${this.last.get(partition)}`)
    this.last.set(partition, number)
    this.seen[number] = 1
    this.count++
  }

  whole() {
    const missing = this.lines.length - this.count
    if (missing) throw new Error(`${missing} rows missing, the first is row ${this.seen.indexOf(0)}`)
  }

  /** Takes over what an earlier run of the same group has seen. */
  resume(path) {
    if (!path || !fs.existsSync(path)) return
    for (const number of fs.readFileSync(path, 'utf8').split('\n').filter(Boolean).map(Number)) {
      this.seen[number] = 1
      this.count++
    }
  }

  save(path) {
    if (!path) return
    const numbers = []
    this.seen.forEach((seen, number) => seen && numbers.push(number))
    fs.writeFileSync(path, numbers.join('\n') + '\n')
  }
}
