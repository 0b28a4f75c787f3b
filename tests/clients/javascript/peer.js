/**
 * Serve procedures with both clients in both serializations: `node peer.js URL`.
 *
 * Writes a line when all of them are registered. When the input ends, so do the sessions, and with
 * them the process. What is called here can be told to call others.
 */
import * as autobahn from './autobahn-js.js';
import { Failure } from './failure.js';
import * as wampy from './wampy-js.js';

const [url] = process.argv.slice(2);
const plain = ({ args, kwargs }) => ({ args: [...args], kwargs: { ...kwargs } });

/** Serve everything below `test.peer.NAME.`. */
async function serve(session, name) {
    const waiting = [];
    const parting = new Map();

    const procedures = {
        echo(args = [], kwargs = {}, { procedure, caller, progress }) {
            progress?.(['begun'], { by: name });
            return {
                args: [plain({ args, kwargs })],
                kwargs: { procedure, caller: caller ?? null, asked: Boolean(progress) },
            };
        },
        fail() {
            throw new Failure('test.error.peer', ['told', name], { reason: 'because' });
        },
        // Neither of these clients can be told that nobody waits any more.
        wait: () => new Promise((resolve) => waiting.push(resolve)),
        release() {
            const answers = waiting.splice(0);
            answers.forEach((answer) => answer({ args: ['too late'] }));
            return { args: [answers.length] };
        },
        async join([uri, options]) {
            const handler = (args, kwargs, { procedure }) => ({ args: [name, procedure] });
            parting.set(uri, await session.register(uri, handler, options));
            return { args: [true] };
        },
        async part([uri]) {
            await parting.get(uri)();
            return { args: [true] };
        },
        /** Call another, and with `cancel` leave that when a report has come. */
        async call([uri, args, kwargs], { progress, cancel, timeout, discloseMe } = {}) {
            const reports = [];
            const onProgress = (...report) => {
                reports.push(report);
                if (cancel) {
                    called.cancel();
                }
            };
            const asking = (progress || cancel) && { onProgress };
            const called = session.call(uri, args, kwargs, { ...asking, timeout, discloseMe });
            const answer = await called.then(plain, (error) => {
                if (error instanceof Failure) {
                    return { error: error.uri, ...plain(error) };
                }
                throw error;
            });
            return { args: [], kwargs: { ...answer, reports } };
        },
    };
    for (const [procedure, handler] of Object.entries(procedures)) {
        await session.register(`test.peer.${name}.${procedure}`, handler);
    }
}

const sessions = [];
for (const [client, driver] of Object.entries({ autobahn_js: autobahn, wampy_js: wampy })) {
    for (const serializer of ['json', 'msgpack']) {
        const session = await driver.open(url, serializer, { realm: 'clients.open' });
        await serve(session, `${client}_${serializer}`);
        sessions.push(session);
    }
}
process.stdout.write('ready\n');
process.stdin.resume();
process.stdin.on('end', () => {
    Promise.all(sessions.map((session) => session.leave())).then(() => process.exit());
});
