/** What every client does to every server. `open` joins a realm and resolves to a session. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';

import { Failure } from './failure.js';

const sha256 = (data) => createHash('sha256').update(data).digest('hex');

/** Call `use` with an anonymous session, which has to end well. */
async function inSession(open, use) {
    const session = await open({});
    await use(session);
    assert.equal(await session.leave(), 'wamp.close.goodbye_and_out');
}

async function failureOf(promise) {
    const { uri, args, kwargs } = await promise.then(
        () => assert.fail('it should have failed'),
        (error) => {
            if (error instanceof Failure) {
                return error;
            }
            throw error;
        },
    );
    return { uri, args, kwargs };
}

/** The server has to know the client as `expected`, and the client has to know that. */
async function logsIn(open, options, identity, details) {
    const session = await open(options);
    const names = ['authid', 'authrole', 'authmethod', 'authprovider'];
    const expected = Object.fromEntries(names.map((name, index) => [name, details[index]]));
    const welcomed = Object.fromEntries(names.map((name) => [name, session.welcome[name]]));
    assert.deepEqual(welcomed, expected);
    const { kwargs } = await session.call('test.who_am_i');
    assert.deepEqual(kwargs, { identity, ...expected });
    await session.leave();
}

async function isRefused(open, options, reason) {
    const { uri } = await failureOf(open(options));
    assert.equal(uri, `wamp.error.${reason}`);
}

const TICKET = { realm: 'clients.ticket', authmethods: ['ticket'] };
const CRA = { realm: 'clients.cra', authmethods: ['wampcra'] };
const KEY = { realm: 'clients.key', authmethods: ['cryptosign'] };
const ANNAS_KEY = 'a1'.repeat(32);
const COOKIE = { realm: 'clients.cookie' };

export const scenarios = {
    // ---- sessions

    async join_and_leave(open, { serializer }) {
        const session = await open({});
        assert.equal(session.subprotocol, `wamp.2.${serializer}`);
        assert(Number(session.id) >= 1 && Number(session.id) <= 2 ** 53);
        assert.equal(session.welcome.realm, 'clients.open');
        assert.equal(session.welcome.authrole, 'anonymous');
        assert.equal(session.welcome.authmethod, 'anonymous');
        assert.equal(await session.leave(), 'wamp.close.goodbye_and_out');
    },

    async unknown_realm(open) {
        await isRefused(open, { realm: 'clients.nowhere' }, 'no_such_realm');
    },

    async fifty_sessions_at_once(open) {
        const numbers = Array.from({ length: 50 }, (_, number) => number);
        const sessions = await Promise.all(numbers.map(() => open({})));
        assert.equal(new Set(sessions.map((session) => Number(session.id))).size, 50);
        const heard = numbers.map(() => []);
        const handlers = heard.map((list) => (args) => list.push(args));
        await Promise.all(sessions.map((s, n) => s.subscribe('test.crowd', handlers[n])));
        await sessions[0].call('test.publish', ['test.crowd', 'hello']);
        // Each session's next reply comes after its event.
        const sums = await Promise.all(sessions.map((s, n) => s.call('test.add', [n, n])));
        assert.deepEqual(sums.map(({ args }) => args[0]), numbers.map((n) => 2 * n));
        assert.deepEqual(heard, numbers.map(() => [['hello']]));
        await Promise.all(sessions.map((session) => session.leave()));
    },

    // ---- calls

    arguments: (open) =>
        inSession(open, async (session) => {
            const cases = [
                [undefined, undefined],
                [[1, 'two', 3.5, null, true, [4, [5]], { six: 6 }], undefined],
                [undefined, { name: 'Anna', list: [1, 2], nested: { deep: { deeper: false } } }],
                [[1, 2], { three: 3 }],
                [[2 ** 53, -(2 ** 53), 2 ** 31, -1, 0], undefined],
            ];
            for (const [args, kwargs] of cases) {
                const result = await session.call('test.arguments', args, kwargs);
                assert.deepEqual(result, { args: [args ?? [], kwargs ?? {}], kwargs: {} });
            }
        }),

    arguments_of_a_signature: (open) =>
        inSession(open, async (session) => {
            const sum = async (...form) => (await session.call('test.add', ...form)).args;
            assert.deepEqual(await sum([1, 2]), [3]);
            assert.deepEqual(await sum([1]), [11]);
            assert.deepEqual(await sum(undefined, { a: 1, b: 2 }), [3]);
            assert.deepEqual(await sum([1], { b: 2 }), [3]);
            assert.deepEqual(await sum(['1', '2']), [3]);
            assert.deepEqual((await session.call('test.blocking_add', [1, 2])).args, [3]);
        }),

    results: (open) =>
        inSession(open, async (session) => {
            const cases = {
                none: { args: [null], kwargs: {} },
                scalar: { args: [23], kwargs: {} },
                list: { args: [1, 'two', [3]], kwargs: {} },
                mapping: { args: [], kwargs: { name: 'Anna', nested: { deep: true } } },
                result: { args: [1, 2], kwargs: { three: 3 } },
                empty: { args: session.noResult, kwargs: {} },
            };
            for (const [form, expected] of Object.entries(cases)) {
                assert.deepEqual(await session.call('test.returned', [form]), expected);
            }
        }),

    errors: (open) =>
        inSession(open, async (session) => {
            assert.deepEqual(await failureOf(session.call('test.raise_error')), {
                uri: 'test.error.raised',
                args: ['told', 1],
                kwargs: { reason: 'because' },
            });
            assert.deepEqual(await failureOf(session.call('test.return_error')), {
                uri: 'test.error.returned',
                args: ['told', 2],
                kwargs: { reason: 'why not' },
            });
            const unexpected = await failureOf(session.call('test.fail'));
            assert.equal(unexpected.uri, 'wamp.error.runtime_error');
            assert(!JSON.stringify(unexpected).includes('a part of the test'));
            for (const wrong of [['one', 2], [1, 2, 3], []]) {
                const { uri } = await failureOf(session.call('test.add', wrong));
                assert.equal(uri, 'wamp.error.invalid_argument');
            }
            assert.deepEqual((await session.call('test.add', [1, 2])).args, [3]);
        }),

    unknown_procedure: (open) =>
        inSession(open, async (session) => {
            const { uri } = await failureOf(session.call('test.nothing.here', [1]));
            assert.equal(uri, 'wamp.error.no_such_procedure');
            assert.deepEqual((await session.call('test.add', [1, 2])).args, [3]);
        }),

    progress: (open) =>
        inSession(open, async (session) => {
            const reports = [];
            const onProgress = (args, kwargs) => reports.push({ args, kwargs });
            const result = await session.call('test.count', [20], undefined, { onProgress });
            assert.deepEqual(result.args, [20]);
            const expected = Array.from({ length: 19 }, (_, index) => index + 1);
            assert.deepEqual(
                reports,
                expected.map((number) => ({ args: [number], kwargs: { of: 20 } })),
            );
        }),

    // Wampy.js fails when it gets what it didn't ask for.
    progress_that_nobody_asked_for: (open) =>
        inSession(open, async (session) => {
            assert.deepEqual((await session.call('test.count', [20])).args, [20]);
            assert.deepEqual((await session.call('test.add', [1, 2])).args, [3]);
        }),

    stream: (open) =>
        inSession(open, async (session) => {
            if (!session.stream) {
                return; // AutobahnJS can't
            }
            const totals = [];
            const call = session.stream('test.running_total', ([total]) => totals.push(total));
            for (const number of [1, 2, 3, 4]) {
                call.send(number, number === 4);
            }
            assert.deepEqual(await call.result, [['total', 10], {}]);
            assert.deepEqual(totals, [1, 3, 6, 10]);

            const refused = session.stream('test.running_total', () => {});
            refused.send('no number', false);
            refused.send(1, true);
            assert.equal((await failureOf(refused.result)).uri, 'wamp.error.invalid_argument');
            assert.deepEqual((await session.call('test.add', [1, 2])).args, [3]);

            const useless = session.stream('test.add', () => {});
            useless.send(1, true);
            const { uri } = await failureOf(useless.result);
            assert.equal(uri, 'wamp.error.feature_not_supported');
        }),

    cancel: (open) =>
        inSession(open, async (session) => {
            let call;
            const begun = new Promise((resolve) => {
                const onProgress = (args) => resolve(args);
                call = session.call('test.wait', undefined, undefined, { onProgress });
            });
            assert.deepEqual(await begun, ['begun']);
            call.cancel();
            assert.equal((await failureOf(call)).uri, 'wamp.error.canceled');
            assert.deepEqual((await session.call('test.wait_has_ended')).args, [true]);
        }),

    timeout: (open) =>
        inSession(open, async (session) => {
            const call = session.call('test.wait', undefined, undefined, { timeout: 50 });
            assert.equal((await failureOf(call)).uri, 'wamp.error.timeout');
            assert.deepEqual((await session.call('test.wait_has_ended')).args, [true]);
        }),

    // ---- values

    binary: (open, { serializer }) =>
        inSession(open, async (session) => {
            // In JSON these clients leave WAMP's form of binary data to their users.
            const isText = serializer === 'json';
            const packed = (data) => (isText ? `\0${data.toString('base64')}` : data);
            const unpacked = (value) => {
                if (!isText) {
                    assert(value instanceof Uint8Array, `${typeof value} is not binary`);
                    return Buffer.from(value);
                }
                assert.equal(value[0], '\0');
                return Buffer.from(value.slice(1), 'base64');
            };
            const all = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));
            for (const data of [Buffer.alloc(0), all, Buffer.alloc(1000)]) {
                const { args, kwargs } = await session.call('test.binary', [packed(data)]);
                assert(unpacked(args[0]).equals(data));
                assert.deepEqual(kwargs, { length: data.length, sha256: sha256(data) });
            }
        }),

    unicode: (open) =>
        inSession(open, async (session) => {
            const value = 'Grüße, 世界 🎉 e\u0301 \u202eright\u202c \u2028 "quoted" \\ \x01 \x7f';
            const { args, kwargs } = await session.call('test.text', [value]);
            assert.deepEqual(args, [value]);
            assert.deepEqual(kwargs, { length: [...value].length, sha256: sha256(value) });
            const named = await session.call('test.arguments', undefined, { größe: value });
            assert.deepEqual(named.args, [[], { größe: value }]);
        }),

    one_mebibyte: (open) =>
        inSession(open, async (session) => {
            const letters = 'abcdefghijklmnopqrstuvwxyz';
            const value = letters.repeat(Math.ceil(2 ** 20 / 26)).slice(0, 2 ** 20);
            const { args, kwargs } = await session.call('test.text', [value]);
            assert(args[0] === value);
            assert.deepEqual(kwargs, { length: 2 ** 20, sha256: sha256(value) });
        }),

    // ---- events

    a_thousand_events_in_order: (open) =>
        inSession(open, async (session) => {
            const received = [];
            await session.subscribe('test.news', ([number]) => received.push(number));
            await session.call('test.publish_numbers', ['test.news', 1000]);
            // The events left before the reply, so that all of them are here.
            assert.deepEqual(received, Array.from({ length: 1000 }, (_, number) => number));
        }),

    arguments_of_events: (open) =>
        inSession(open, async (session) => {
            const received = [];
            await session.subscribe('test.news', (args, kwargs) => received.push([args, kwargs]));
            const cases = [
                [[], {}],
                [[1, 'two'], {}],
                [[], { name: 'Anna' }],
                [[1], { name: 'Anna' }],
            ];
            for (const [args, kwargs] of cases) {
                await session.call('test.publish', ['test.news', ...args], kwargs);
            }
            assert.deepEqual(received, cases);
        }),

    event_of_the_subscription_handler: (open) =>
        inSession(open, async (session) => {
            const event = await new Promise((resolve, reject) => {
                const handler = (args, kwargs) => resolve([args, kwargs]);
                session.subscribe('test.greeting', handler).catch(reject);
            });
            assert.deepEqual(event, [['first'], { topic: 'test.greeting' }]);
        }),

    unsubscribe_and_subscribe_again: (open) =>
        inSession(open, async (session) => {
            const received = [];
            for (const time of ['first', 'second']) {
                const handler = ([text]) => received.push(text);
                const unsubscribe = await session.subscribe('test.news', handler);
                await session.call('test.publish', ['test.news', `${time} time`]);
                await unsubscribe();
                await session.call('test.publish', ['test.news', 'to nobody']);
            }
            assert.deepEqual(received, ['first time', 'second time']);
        }),

    publishing: (open) =>
        inSession(open, async (session) => {
            const received = [];
            const other = await open({});
            for (const listener of [session, other]) {
                for (const topic of ['test.board.a', 'test.measured']) {
                    await listener.subscribe(topic, (args, kwargs, { publisher }) => {
                        const who = listener === session ? 'me' : 'other';
                        received.push([who, args, kwargs, publisher && Number(publisher)]);
                    });
                }
            }
            const me = Number(session.id);
            const id = await session.publish('test.board.a', [1], { a: 2 }, { disclose_me: true });
            assert(Number(id) >= 1 && Number(id) <= 2 ** 53);
            await session.publish('test.measured', [21.5]);
            const refused = await failureOf(session.publish('test.measured', [-300]));
            assert.equal(refused.uri, 'test.error.too_cold');
            assert.deepEqual(refused.args, [-300]);
            // Wampy.js never says `exclude_me: false`, so that this comes from somebody else.
            const toMe = { eligible: [session.id, other.id] };
            await other.publish('test.board.a', ['me'], undefined, toMe);
            const toNobody = { exclude_authrole: ['anonymous'] };
            await other.publish('test.board.a', ['nobody'], undefined, toNobody);
            const closed = await failureOf(session.publish('test.news'));
            assert.equal(closed.uri, 'wamp.error.not_authorized');
            // Each session's next reply comes after its events.
            await Promise.all([session, other].map((each) => each.call('test.add', [1, 2])));
            await other.leave();
            const [, , named] = received[1];
            named.by = Number(named.by);
            assert.deepEqual(received, [
                ['other', [1], { a: 2 }, me],
                ['other', [], { celsius: 21.5, by: me }, undefined],
                ['me', ['me'], {}, undefined],
            ]);
        }),

    async receivers(open) {
        const anna = await open({ ...CRA, authid: 'anna', secret: "anna's secret" });
        const bert = { ...CRA, authid: 'bert', secret: "bert's password" };
        const listeners = { anna, bert: await open(bert) };
        const publisher = await open(bert);
        const received = [];
        for (const [name, listener] of Object.entries(listeners)) {
            await listener.subscribe('test.board.news', ([text]) => received.push([name, text]));
        }
        const onlyFor = {
            exclude: ['bert', [anna.id]],
            exclude_authid: ['bert', ['anna']],
            exclude_authrole: ['bert', ['admin']],
            eligible: ['anna', [anna.id]],
            eligible_authid: ['anna', ['anna']],
            eligible_authrole: ['anna', ['admin']],
        };
        for (const [option, [, who]] of Object.entries(onlyFor)) {
            await publisher.publish('test.board.news', [option], undefined, { [option]: who });
        }
        const sessions = [...Object.values(listeners), publisher];
        // Each session's next reply comes after its events.
        await Promise.all(sessions.map((session) => session.call('test.who_am_i')));
        const expected = Object.entries(onlyFor).map(([option, [name]]) => [name, option]);
        assert.deepEqual(received.sort(), expected.sort());
        await Promise.all(sessions.map((session) => session.leave()));
    },

    patterns: (open) =>
        inSession(open, async (session) => {
            const received = [];
            const patterns = { prefix: 'test.board.a', wildcard: 'test.board..b' };
            for (const [match, pattern] of Object.entries(patterns)) {
                const handler = ([text], _, { topic }) => received.push([match, topic, text]);
                await session.subscribe(pattern, handler, match);
            }
            await session.call('test.publish', ['test.board.a', 'one']);
            await session.call('test.publish', ['test.board.a.b', 'two']);
            assert.deepEqual(received, [
                ['prefix', 'test.board.a', 'one'],
                ['prefix', 'test.board.a.b', 'two'],
                ['wildcard', 'test.board.a.b', 'two'],
            ]);
            const refused = await failureOf(session.subscribe('test', () => {}, 'prefix'));
            assert.equal(refused.uri, 'wamp.error.not_authorized');
        }),

    refused_subscriptions: (open) =>
        inSession(open, async (session) => {
            const refused = await failureOf(session.subscribe('test.closed_club', () => {}));
            assert.equal(refused.uri, 'test.error.members_only');
            assert.deepEqual(refused.args, ['sorry']);
            const unknown = await failureOf(session.subscribe('test.no_such_topic', () => {}));
            assert.equal(unknown.uri, 'wamp.error.not_authorized');
            assert.deepEqual((await session.call('test.add', [1, 2])).args, [3]);
        }),

    // ---- authentication

    ticket: (open) =>
        logsIn(
            open,
            { ...TICKET, authid: 'anna', ticket: "anna's ticket" },
            'Anna by ticket',
            ['anna', 'user', 'ticket', 'dynamic'],
        ),

    cra: (open) =>
        logsIn(
            open,
            { ...CRA, authid: 'anna', secret: "anna's secret" },
            'anna by secret',
            ['anna', 'admin', 'wampcra', 'test'],
        ),

    salted_cra: (open) =>
        logsIn(
            open,
            { ...CRA, authid: 'bert', secret: "bert's password" },
            'bert by secret',
            ['bert', 'member', 'wampcra', 'test'],
        ),

    cryptosign: (open) =>
        logsIn(
            open,
            { ...KEY, authid: 'anna', privateKey: ANNAS_KEY },
            'anna by key',
            ['anna', 'admin', 'cryptosign', 'test'],
        ),

    async several_methods(open) {
        const credentials = {
            realm: 'clients.several',
            authid: 'anna',
            ticket: "anna's ticket",
            secret: "anna's secret",
            privateKey: ANNAS_KEY,
        };
        for (const first of ['ticket', 'wampcra', 'cryptosign']) {
            const authmethods = [first, 'ticket', 'wampcra', 'cryptosign'];
            const session = await open({ ...credentials, authmethods });
            assert.equal(session.welcome.authmethod, first);
            await session.leave();
        }
    },

    async who_is_there(open) {
        const anna = await open({ ...CRA, authid: 'anna', secret: "anna's secret" });
        const bert = { ...CRA, authid: 'bert', secret: "bert's password" };
        const events = [];
        const note = (name, args, isOf) => {
            events.push({ name, args, isOf });
        };
        await anna.subscribe('wamp.session.on_join', (args) => note('join', args, args[0].session));
        await anna.subscribe('wamp.session.on_leave', (args) => note('leave', args, args[0]));
        const session = await open(bert);
        const id = session.id;
        const { args: [described] } = await anna.call('wamp.session.get', [id]);
        const { session: itsId, ...rest } = described;
        assert.equal(Number(itsId), Number(id));
        assert.deepEqual(rest, {
            authid: 'bert',
            authrole: 'member',
            authmethod: 'wampcra',
            authprovider: 'test',
        });
        const { args: [members] } = await session.call('wamp.session.list', [['member']]);
        assert(members.map(Number).includes(Number(id)));
        const refusal = await failureOf(session.call('wamp.session.kill', [id]));
        assert.equal(refusal.uri, 'wamp.error.not_authorized');
        await session.leave();
        const { uri } = await failureOf(anna.call('wamp.session.get', [id]));
        assert.equal(uri, 'wamp.error.no_such_session');
        // Both events left before that reply; other sessions may have come and gone meanwhile.
        const own = events.filter(({ isOf }) => Number(isOf) === Number(id));
        assert.deepEqual(own.map(({ name }) => name), ['join', 'leave']);
        assert.deepEqual(own[0].args, [described]);
        assert.deepEqual(own[1].args.slice(1), ['bert', 'member']);
        await anna.leave();
    },

    async a_testament(open) {
        const anna = await open({ ...CRA, authid: 'anna', secret: "anna's secret" });
        const bert = await open({ ...CRA, authid: 'bert', secret: "bert's password" });
        const received = [];
        const note = (args, kwargs) => {
            received.push([args, kwargs]);
        };
        await anna.subscribe('test.presence', note);
        const args = [String(bert.id), 'is gone'];
        const testament = ['test.presence', args, { name: 'bert' }];
        await bert.call('wamp.session.add_testament', testament);
        await bert.leave();
        await anna.call('wamp.session.count'); // its reply comes after the event
        // Other sessions may have come and gone meanwhile.
        const own = received.filter(([[id]]) => id === String(bert.id));
        assert.deepEqual(own, [[args, { name: 'bert' }]]);
        await anna.leave();
    },

    cookie: (open) =>
        logsIn(
            open,
            { ...COOKIE, headers: { Cookie: 'other=1; login=annas-cookie' } },
            'Anna by cookie',
            ['anna', 'user', 'anonymous', 'dynamic'],
        ),

    async refused_tickets(open) {
        const forged = { ...TICKET, authid: 'anna', ticket: 'a forged one' };
        await isRefused(open, forged, 'authentication_failed');
        const stolen = { ...TICKET, authid: 'eve', ticket: "anna's ticket" };
        await isRefused(open, stolen, 'authentication_failed');
    },

    async refused_secrets(open) {
        for (const authid of ['anna', 'bert', 'eve']) {
            await isRefused(open, { ...CRA, authid, secret: 'a guess' }, 'authentication_failed');
        }
    },

    async refused_keys(open) {
        const forged = { ...KEY, privateKey: 'ee'.repeat(32) };
        for (const authid of ['anna', 'eve']) {
            await isRefused(open, { ...forged, authid }, 'authentication_failed');
        }
    },

    async refused_cookies(open) {
        const forged = { ...COOKIE, headers: { Cookie: 'login=forged' } };
        await isRefused(open, forged, 'authentication_failed');
        await isRefused(open, COOKIE, 'authentication_failed');
    },

    async refused_without_a_method(open) {
        await isRefused(open, { realm: 'clients.ticket' }, 'authentication_required');
        await isRefused(open, { realm: 'clients.cra' }, 'authentication_required');
    },

    async refused_with_another_method(open) {
        const other = { ...TICKET, realm: 'clients.cra', authid: 'anna', ticket: 'a ticket' };
        await isRefused(open, other, 'no_matching_auth_method');
    },
};
