/**
 * The shapes of what the server sends, as its REST and live interfaces describe them.
 * Nothing runs here: the other modules refer to these types in their JSDoc.
 */

/**
 * @typedef {"unknown"|"stopped"|"starting"|"running"|"degraded"|"stopping"|"failed"|"unreachable"|"maintenance"} State
 * @typedef {"start"|"stop"|"restart"|"repair"} Kind
 * @typedef {{id: string, name: string, slug: string}} Named
 * @typedef {{code: string, message: string, component?: string|{id: string, name: string}}} Problem
 */

/**
 * @typedef {object} Agent
 * @property {string} id
 * @property {string} agentId
 * @property {string} hostname
 * @property {boolean} isOnline
 */

/**
 * @typedef {object} Component
 * @property {string} id
 * @property {string} name
 * @property {string} type
 * @property {string|null} group
 * @property {string} host
 * @property {Agent|null} agent
 * @property {State} state
 * @property {string|null} stateSince  ISO 8601
 * @property {string|null} stateReason
 * @property {{name: string, version: string|null}|null} technology
 * @property {Record<string, string>} labels
 * @property {string[]} commands
 * @property {string|null} operation  id of the operation that holds it
 * @property {number} version
 */

/** @typedef {{from: string, to: string, kind: "strong"|"weak"}} Dependency  `to` is the one needed */

/** @typedef {{name: string, title: string, state: State, componentCount: number}} Group */

/**
 * @typedef {object} Step
 * @property {string} id
 * @property {{id: string, name: string}} component
 * @property {"start"|"stop"|"restart"} action
 * @property {"waiting"|"running"|"succeeded"|"failed"|"skipped"|"waived"|"cancelled"} state
 * @property {string[]} after
 * @property {string|null} commandId
 * @property {string|null} startedAt
 * @property {string|null} finishedAt
 * @property {string|null} detail
 */

/**
 * @typedef {object} Operation
 * @property {string} id
 * @property {Kind} kind
 * @property {"queued"|"running"|"succeeded"|"failed"|"rolled_back"|"cancelled"} state
 * @property {string|null} pausedAt  ISO 8601; null while things begin
 * @property {{position: number, waitsFor: {id: string, kind: Kind, target: string}[]}|null} queue  only while queued
 * @property {string} mapId
 * @property {string} target
 * @property {string|null} reason
 * @property {{id: string, name: string, email: string}|null} requestedBy
 * @property {string} createdAt
 * @property {string|null} finishedAt
 * @property {Record<string, number>} counts
 * @property {Step[]} steps
 */

/**
 * @typedef {object} OpsMap  one whole Map, as GET /maps/{id} answers
 * @property {string} id
 * @property {string} name
 * @property {string} slug
 * @property {string} description
 * @property {State} state
 * @property {number} version
 * @property {Named} organization
 * @property {Named} workspace
 * @property {string} url
 * @property {Group[]} groups
 * @property {Component[]} components
 * @property {Dependency[]} dependencies
 * @property {Operation[]} operations
 * @property {Record<string, boolean>} permissions
 */

/**
 * @typedef {object} MapSummary
 * @property {string} id
 * @property {string} name
 * @property {string} slug
 * @property {string} description
 * @property {State} state
 * @property {Record<string, number>} counts
 * @property {number} componentCount
 * @property {number} version
 * @property {Named} organization
 * @property {Named} workspace
 * @property {{id: string, kind: Kind, state: string}|null} operation
 * @property {string} url
 */

/**
 * @typedef {object} PlanStep
 * @property {string} key
 * @property {{id: string, name: string, state: State}} component
 * @property {"start"|"stop"|"restart"} action
 * @property {string[]} after
 * @property {string} host
 * @property {Agent|null} agent
 * @property {string} command
 * @property {boolean} isAllowed
 * @property {Problem[]} problems
 * @property {number|null} predictedMs
 * @property {number|null} predictedP90Ms
 */

/**
 * @typedef {object} Plan
 * @property {Kind} kind
 * @property {string} target
 * @property {PlanStep[]} steps
 * @property {{id: string, name: string, state: State}[]} untouched
 * @property {Problem[]} problems
 * @property {boolean} isExecutable
 * @property {string[]} criticalPath
 * @property {number|null} predictedMs
 * @property {number|null} predictedP90Ms
 * @property {number} levels
 */

/**
 * @typedef {object} Command
 * @property {string} id
 * @property {string} name
 * @property {string} state
 * @property {string|null} detail
 * @property {{check_type: string, passed: boolean, details: unknown, checked_at: string}|null} check
 * @property {number|null} exitCode
 * @property {number|null} pid
 * @property {string} createdAt
 * @property {string|null} startedAt
 * @property {string|null} finishedAt
 * @property {number|null} durationMs
 * @property {string|null} logTail
 */

/** @typedef {{id: string, name: string, kind: "strong"|"weak", state: State}} Neighbour */

/**
 * @typedef {object} ComponentExtra
 * @property {{name: string, summary: string, mode: string, timeoutMs: number}[]} commandDetails
 * @property {{status: string|null, details: unknown, checkedAt: string|null}|null} health
 * @property {Neighbour[]} dependencies
 * @property {Neighbour[]} dependents
 * @property {{previous: State, state: State, cause: string, reason: string|null, at: string}[]} history
 * @property {Command[]} recentCommands
 */

/** @typedef {Component & ComponentExtra} ComponentDetail */

/**
 * @typedef {object} ChangesMessage
 * @property {"changes"} type
 * @property {number} version
 * @property {State} [mapState]
 * @property {{name: string, state: State}[]} [groups]
 * @property {(Partial<Component> & {id: string})[]} [components]
 * @property {Operation[]} [operations]
 */

export {};
