# frozen_string_literal: true

# The checklist with Ruby's pg, settings as they are; where to connect to is in PGHOST, PGPORT, ...

require "pg"

require_relative "checklist"

# Each public method but `close` is a cell.
class Cells
  def initialize
    @open = []
  end

  def close
    @open.each { |connection| connection.close unless connection.finished? }
    @open.clear
  end

  def connect
    a = open(application_name: "ruby pg")
    same({ "who" => ENV["PGUSER"], "what" => "ruby pg" },
         a.exec("SELECT current_user AS who, current_setting('application_name') AS what")[0])
    same("UTF8", a.parameter_status("client_encoding"))
    a.reset
    same("1", value(a, "SELECT 1"))
    refused = fails(PG::ConnectionBad) { open(password: "wrong") }
    same(true, refused.message.include?("password authentication failed"))
  end

  def types
    a = open
    sql = <<~SQL
      SELECT 1::int2, 9007199254740993::int8, 1.5::float8, 12.340::numeric, true, 'zwölf €', '\\x00ff'::bytea,
        '2024-02-29 12:00:00.123+00'::timestamptz, '2024-02-29'::date, '{"a": [1, null]}'::jsonb,
        ARRAY[1, NULL, 3], ARRAY['a', 'b"c', NULL], NULL::int
    SQL
    same(["1", "9007199254740993", "1.5", "12.340", "t", "zwölf €", "\\x00ff", "2024-02-29 12:00:00.123+00",
          "2024-02-29", '{"a": [1, null]}', "{1,NULL,3}", '{a,"b\"c",NULL}', nil], a.exec(sql).values[0])
    a.type_map_for_results = PG::BasicTypeMapForResults.new(a) # it asks the catalogue
    same([1, 9_007_199_254_740_993, 1.5, BigDecimal("12.340"), true, "zwölf €", "\x00\xFF".b,
          Time.utc(2024, 2, 29, 12, 0, Rational(123, 1000)), Date.new(2024, 2, 29), { "a" => [1, nil] },
          [1, nil, 3], ["a", 'b"c', nil], nil], a.exec(sql).values[0])
    binary = a.exec_params("SELECT $1::bytea, 258::int4", [{ value: "\0\1\xFF".b, format: 1 }], 1)
    same(["\0\1\xFF".b, 258], binary.values[0])
  end

  def parameters
    a = open
    a.type_map_for_results = PG::BasicTypeMapForResults.new(a)
    a.type_map_for_queries = PG::BasicTypeMapForQueries.new(a)
    bytes = PG::BasicTypeMapForQueries::BinaryData.new((0..255).to_a.pack("C*"))
    moment = Time.utc(2024, 2, 29, 12, 0, Rational(123, 1000))
    sql = "SELECT $1::int, $2::text, $3::bytea, $4::timestamptz, $5::jsonb, $6::int[], $7::text, $8::bool"
    sent = [7, "it's", bytes, moment, { "x" => 1 }, [1, nil, 3], nil, false]
    same(sent, a.exec_params(sql, sent).values[0])
    long = "é" * 500_000
    same(long, value(a, "SELECT $1::text", [long]))
    sum = (1..1000).map { |n| "$#{n}::int" }.join(" + ")
    same(499_500, value(a, "SELECT #{sum}", (0..999).to_a))
    fails(PG::InvalidTextRepresentation) { value(a, "SELECT $1::text::int", ["seven"]) }
    same(8, value(a, "SELECT $1::int", [8]))
  end

  def prepared
    connections = several(3)
    servers = connections.map { [] }
    # The same name means another statement on each connection.
    connections.each_with_index { |one, n| one.prepare("own", "SELECT $1::int + #{n} AS n, pg_backend_pid() AS pid") }
    alternate(connections, 30) do |connection, number, round|
      me = (number * 1000) + round
      row = connection.exec_prepared("own", [me])[0]
      same((me + number).to_s, row["n"])
      servers[number] |= [row["pid"]]
      same("t#{me}", value(connection, "SELECT $1::text", ["t#{me}"]))
      connection.prepare("late #{round}", "SELECT #{round}")
      same(round.to_s, connection.exec_prepared("late #{round}").getvalue(0, 0))
      same("n", connection.describe_prepared("own").fname(0))
      connection.exec(%(DEALLOCATE "late #{round - 1}")) if round.positive?
    end
    quotients(connections[0])
    squares
    "a connection has met #{servers.map(&:size).max} servers"
  end

  def pipelining
    a = open
    a.prepare("ahead", "SELECT $1::int + 1")
    a.enter_pipeline_mode
    3.times do
      a.send_query_params("SELECT 1", [])
      a.send_query_prepared("ahead", [1])
      a.pipeline_sync
      a.send_query_params("SELECT 1 / $1::int", [0])
      a.send_query_params("SELECT 'skipped'", [])
      a.pipeline_sync
      a.send_prepare("inside", "SELECT 'inside'")
      a.send_query_prepared("inside", [])
      a.send_query_params('DEALLOCATE "inside"', [])
      a.pipeline_sync
      got = Array.new(10) { answer(a) }
      same(["1", "2", :sync, "22012", :aborted, :sync, :done, "inside", :done, :sync], got)
    end
    a.exit_pipeline_mode
    same("4", value(a, "SELECT 4"))
  end

  def transactions
    a, b = several(2)
    table(a, "ruby_transactions", "n int")
    count = -> { value(b, "SELECT count(*) FROM ruby_transactions") }
    a.transaction do
      a.exec_params("INSERT INTO ruby_transactions VALUES ($1), ($2)", [1, 2])
      same("0", count.call)
    end
    same("2", count.call)
    fails(PG::DivisionByZero) do
      a.transaction do
        a.exec("INSERT INTO ruby_transactions VALUES (3)")
        error = fails(PG::DivisionByZero) { a.exec("SELECT 1 / 0") }
        fails(PG::InFailedSqlTransaction) { a.exec("SELECT 1") }
        same(PG::PQTRANS_INERROR, a.transaction_status)
        raise error
      end
    end
    same("2", count.call)
    same(PG::PQTRANS_IDLE, a.transaction_status)
    a.exec("BEGIN ISOLATION LEVEL SERIALIZABLE")
    same("serializable", value(a, "SHOW transaction_isolation"))
    a.exec("ROLLBACK")
    same("read committed", value(a, "SHOW transaction_isolation"))
    a.exec("DROP TABLE ruby_transactions")
  end

  def savepoints
    a = open
    table(a, "ruby_savepoints", "n int PRIMARY KEY")
    a.transaction do
      a.exec("INSERT INTO ruby_savepoints VALUES (1)")
      a.exec("SAVEPOINT one")
      fails(PG::UniqueViolation) { a.exec_params("INSERT INTO ruby_savepoints VALUES ($1)", [1]) }
      a.exec("ROLLBACK TO SAVEPOINT one")
      a.exec("INSERT INTO ruby_savepoints VALUES (2)")
      a.exec("RELEASE SAVEPOINT one")
    end
    same("{1,2}", value(a, "SELECT array_agg(n ORDER BY n) FROM ruby_savepoints"))
    a.exec("DROP TABLE ruby_savepoints")
  end

  def copy
    a = open
    table(a, "ruby_copy", "n int, t text")
    lines = Array.new(20_000) { |n| "#{n}\trow #{n}\n" }
    a.copy_data("COPY ruby_copy FROM STDIN") { lines.each { |one| a.put_copy_data(one) } }
    out = []
    a.copy_data("COPY ruby_copy TO STDOUT") do
      while (one = a.get_copy_data)
        out << one
      end
    end
    same(lines, out)
    fails(PG::InvalidTextRepresentation) do
      a.copy_data("COPY ruby_copy FROM STDIN") { a.put_copy_data("one\ttwo\n") }
    end
    fails(ArgumentError) do
      a.copy_data("COPY ruby_copy FROM STDIN") { raise ArgumentError, "given up" }
    end
    same("20000", value(a, "SELECT count(*) FROM ruby_copy"))
    a.exec("DROP TABLE ruby_copy")
  end

  def cancel
    a, b = several(2)
    a.send_query("SELECT pg_sleep(15) AS ruby")
    sleeping = "SELECT count(*) FROM pg_stat_activity " \
               "WHERE query LIKE '%pg_sleep(15) AS ruby' AND wait_event = 'PgSleep'"
    nil until value(b, sleeping) == "1"
    same(nil, a.cancel)
    fails(PG::QueryCanceled) { a.get_last_result }
    same("1", value(a, "SELECT 1"))
  end

  def statement_timeout
    a, b = several(2)
    a.exec("SET statement_timeout = '150ms'")
    alternate([a, b], 4) { |one, n| same(%w[150ms 0][n], value(one, "SHOW statement_timeout")) }
    b.transaction do
      b.exec("SELECT 1")
      fails(PG::QueryCanceled) { a.exec("SELECT pg_sleep(15)") }
    end
    fails(PG::QueryCanceled) { a.transaction { a.exec_params("SELECT pg_sleep($1)", [15]) } }
    a.exec("RESET statement_timeout")
    same("0", value(a, "SHOW statement_timeout"))
  end

  def notices
    a = open
    seen = []
    a.set_notice_receiver do |result|
      fields = [PG::PG_DIAG_SEVERITY, PG::PG_DIAG_MESSAGE_PRIMARY, PG::PG_DIAG_SQLSTATE]
      seen << fields.map { |field| result.error_field(field) }
    end
    a.exec("DO $$ BEGIN RAISE NOTICE 'hear %', 'me'; RAISE WARNING 'and this'; END $$")
    same([["NOTICE", "hear me", "00000"], ["WARNING", "and this", "01000"]], seen)
  end

  def large_rows
    a = open
    same("0123456789" * 500_000, value(a, "SELECT repeat('0123456789', 500000)"))
    rows = a.exec("SELECT n, md5(n::text) FROM generate_series(1, 50000) AS n")
    same(1_250_025_000, rows.column_values(0).sum(&:to_i))
    a.send_query("SELECT n FROM generate_series(1, 5000) AS n")
    a.set_single_row_mode
    sum = 0
    a.get_result.stream_each_row { |row| sum += row[0].to_i }
    same(12_502_500, sum)
    same(nil, a.get_result)
    a.transaction do
      a.exec("DECLARE c CURSOR FOR SELECT n FROM generate_series(1, 5000) AS n")
      sum = 0
      while (part = a.exec("FETCH 700 FROM c")).ntuples.positive?
        sum += part.column_values(0).sum(&:to_i)
      end
    end
    same(12_502_500, sum)
  end

  def reconnect
    a, b = several(2)
    a.exec("BEGIN")
    pid = value(a, "SELECT pg_backend_pid()")
    same("t", value(b, "SELECT pg_terminate_backend($1, 5000)", [pid]))
    lost = fails(PG::Error) { a.exec("SELECT 1") }
    known = [PG::AdminShutdown, PG::ConnectionBad, PG::UnableToSend]
    raise lost unless known.any? { |kind| lost.is_a?(kind) }

    a.reset
    same("1", value(a, "SELECT 1"))
    same("2", value(b, "SELECT 2"))
  end

  def temporary_tables
    connections = several(3)
    connections.first(2).each { |one| one.exec("CREATE TEMPORARY TABLE ruby_temporary (n int)") }
    alternate(connections, 6) do |connection, number, round|
      if number == 2
        same(nil, value(connection, "SELECT to_regclass('ruby_temporary')"))
        next
      end
      step = [1, 100][number]
      connection.exec_params("INSERT INTO ruby_temporary VALUES ($1)", [step])
      same((step * (round + 1)).to_s, value(connection, "SELECT sum(n) FROM ruby_temporary"))
    end
    connections.first(2).each { |one| one.exec("DROP TABLE ruby_temporary") }
  end

  def settings
    connections = [*several(2), open(application_name: "third")]
    expected = [["pg_catalog", "Asia/Tokyo", "first"], ["public", "America/Lima", "second"]]
    expected.zip(connections) do |(path, zone, name), connection|
      connection.transaction do
        connection.exec("SET search_path TO #{path}")
        connection.exec("SET TIME ZONE '#{zone}'")
        connection.exec_params("SELECT set_config('application_name', $1, false)", [name])
      end
    end
    show = "SELECT current_setting('search_path'), current_setting('timezone'), current_setting('application_name')"
    expected << connections[2].exec(show).values[0]
    same("third", expected[2][2])
    alternate(connections, 9) { |one, n| same(expected[n], one.exec(show).values[0]) }
  end

  def role
    a, b = several(2)
    a.exec("SET ROLE pg_read_all_stats")
    alternate([a, b], 4) { |one, n| same(["pg_read_all_stats", ENV["PGUSER"]][n], value(one, "SELECT current_user")) }
    a.exec("RESET ROLE")
    same(ENV["PGUSER"], value(a, "SELECT current_user"))
  end

  def listen
    a, b = several(2)
    a.exec("LISTEN ruby")
    %w[one zwölf].each do |payload|
      b.exec_params("SELECT pg_notify($1, $2)", ["ruby", payload])
      heard = nil
      a.wait_for_notify(5) { |channel, _pid, text| heard = [channel, text] }
      same(["ruby", payload], heard)
      same("1", value(a, "SELECT 1"))
    end
    a.exec("UNLISTEN ruby")
  end

  def advisory_locks
    a, b = several(2)
    ask = ->(connection, name) { value(connection, "SELECT pg_#{name}($1)", [Process.pid]) }
    ask.call(a, "advisory_lock")
    alternate([a, b], 4) do |connection, number|
      same(%w[t f][number], ask.call(connection, "try_advisory_lock"))
      same("t", ask.call(a, "advisory_unlock")) if number.zero? # once for each time it was taken
    end
    same("t", ask.call(a, "advisory_unlock"))
    same("t", ask.call(b, "try_advisory_lock"))
    same("t", ask.call(b, "advisory_unlock"))
  end

  private

  def same(...) = Checklist.same(...)
  def fails(...) = Checklist.fails(...)
  def alternate(...) = Checklist.alternate(...)

  def open(**settings)
    PG.connect(**settings).tap { |connection| @open << connection }
  end

  def several(count) = Array.new(count) { open }

  def value(connection, sql, parameters = [])
    connection.exec_params(sql, parameters).getvalue(0, 0)
  end

  def table(connection, name, columns)
    connection.exec("DROP TABLE IF EXISTS #{name}; CREATE TABLE #{name} (#{columns})")
  end

  def quotients(connection)
    connection.prepare("quotient", "SELECT 12 / $1::int")
    fails(PG::DivisionByZero) { connection.exec_prepared("quotient", [0]) }
    same("3", connection.exec_prepared("quotient", [4]).getvalue(0, 0))
    fails(PG::DuplicatePstatement) { connection.prepare("quotient", "SELECT 1") }
    fails(PG::InvalidSqlStatementName) { connection.exec_prepared("nobody", []) }
    connection.exec("DEALLOCATE quotient")
    connection.prepare("quotient", "SELECT 24 / $1::int")
    same("6", connection.exec_prepared("quotient", [4]).getvalue(0, 0))
  end

  # Eight threads, each with a connection of its own.
  def squares
    threads = several(8).map do |connection|
      Thread.new do
        connection.prepare("square", "SELECT $1::int * $1::int")
        Array.new(25) { |n| connection.exec_prepared("square", [n]).getvalue(0, 0).to_i }
      end
    end
    threads.each { |thread| same(Array.new(25) { |n| n * n }, thread.value) }
  end

  # Takes the next answer of a pipeline, and the nil behind it, which a sync does not have.
  def answer(connection)
    begin
      result = connection.get_result
    rescue PG::Error => e
      result = e.result
    end
    return :sync if result.result_status == PG::PGRES_PIPELINE_SYNC

    connection.get_result
    case result.result_status
    when PG::PGRES_TUPLES_OK then result.getvalue(0, 0)
    when PG::PGRES_COMMAND_OK then :done
    when PG::PGRES_PIPELINE_ABORTED then :aborted
    else result.error_field(PG::PG_DIAG_SQLSTATE)
    end
  end
end

Checklist.run(Cells.new)
