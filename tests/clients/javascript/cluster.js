/**
 * Follow topics with each client at its own server: `node cluster.js URL URL`.
 *
 * Each publishes three events when a line comes in. When both have three events of the other and
 * the input has ended, the program ends the sessions and writes what each has received.
 */
import * as autobahn from './autobahn-js.js';
import * as wampy from './wampy-js.js';

const [autobahnUrl, wampyUrl] = process.argv.slice(2);
const sessions = [
    await autobahn.open(autobahnUrl, 'json', { realm: 'realm1' }),
    await wampy.open(wampyUrl, 'msgpack', { realm: 'realm1' }),
];
let allReceived;
const receiving = new Promise((resolve) => (allReceived = resolve));
const received = sessions.map(() => []);
for (const [index, session] of sessions.entries()) {
    const handler = (args) => {
        received[index].push(args[0]);
        if (received.every((events) => events.length >= 3)) {
            allReceived();
        }
    };
    await session.subscribe('com.news', handler, 'prefix');
}
process.stdout.write('ready\n');
process.stdin.once('data', async () => {
    for (const [index, session] of sessions.entries()) {
        for (const number of [1, 2, 3]) {
            await session.publish('com.news.day', [`${index}.${number}`], {}, {});
        }
    }
    process.stdout.write('published\n');
});
process.stdin.on('end', async () => {
    await receiving;
    await Promise.all(sessions.map((session) => session.leave()));
    process.stdout.write(`${JSON.stringify(received)}\n`, () => process.exit());
});
