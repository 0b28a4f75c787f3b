/**
 * Run every scenario with one client against one server: `node run.js CLIENT SERIALIZER URL`.
 *
 * Each writes a line of JSON: its name, and why it failed or null. The process ends by itself when
 * nothing is left open, and is made to fail otherwise.
 */
import { inspect } from 'node:util';

import * as autobahn from './autobahn-js.js';
import { scenarios } from './scenarios.js';
import * as wampy from './wampy-js.js';

const TIMEOUT = 10_000; // milliseconds, for a scenario
const GRACE = 5_000; // and for what is left open in the end

const [client, serializer, url] = process.argv.slice(2);
const driver = { 'autobahn-js': autobahn, 'wampy-js': wampy }[client];
const open = (options) => driver.open(url, serializer, { realm: 'clients.open', ...options });

function inTime(promise) {
    let timer;
    const late = new Promise((_, reject) => {
        timer = setTimeout(() => reject(new Error('it took too long')), TIMEOUT);
    });
    return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

for (const [name, scenario] of Object.entries(scenarios)) {
    const error = await inTime(scenario(open, { serializer })).then(
        () => null,
        (reason) => inspect(reason),
    );
    process.stdout.write(`${JSON.stringify({ name, error })}\n`);
}
setTimeout(() => {
    process.stderr.write('connections are left open\n');
    process.exit(1);
}, GRACE).unref();
