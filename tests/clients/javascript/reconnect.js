/**
 * Subscribe with both clients, as a page would that wants to come back: `node reconnect.js URL`.
 *
 * Each line tells what has happened to a client. The process ends when none of them wants to
 * connect again.
 */
import autobahn from 'autobahn';
import { Wampy } from 'wampy';
import WebSocket from 'ws';

// AutobahnJS uses the WebSocket of browsers, where a failed attempt is an event and no exception.
globalThis.WebSocket ??= class extends WebSocket {
    constructor(...args) {
        super(...args);
        this.on('error', () => {});
    }
};

const [url] = process.argv.slice(2);
const RETRY_SECONDS = 0.1;

const tell = (...happened) => process.stdout.write(`${JSON.stringify(happened)}\n`);

const connection = new autobahn.Connection({
    url,
    realm: 'realm1',
    initial_retry_delay: RETRY_SECONDS,
    retry_delay_growth: 1,
    max_retries: -1,
});
connection.onopen = async (session) => {
    await session.subscribe('topic', ([text]) => tell('autobahn-js', text));
    tell('autobahn-js', 'subscribed');
};
connection.onclose = (reason, details) => {
    if (!details.will_retry) {
        tell('autobahn-js', `closed: ${details.reason}`);
    }
};
connection.open();

const client = new Wampy(url, {
    realm: 'realm1',
    ws: WebSocket,
    reconnectInterval: RETRY_SECONDS * 1000,
    maxRetries: 0,
    onReconnectSuccess: () => tell('wampy-js', 'subscribed'), // it renews its subscriptions itself
    onClose: () => tell('wampy-js', 'closed'),
});
await client.connect();
await client.subscribe('topic', ({ argsList: [text] }) => tell('wampy-js', text));
tell('wampy-js', 'subscribed');
