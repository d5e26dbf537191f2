# frozen_string_literal: true

require "timeout"

# Runs the cells one after the other, one line for each, and has what they are made of.
module Checklist
  LIMIT = 20 # seconds, for one cell

  NAMES = %w[
    connect types parameters prepared pipelining transactions savepoints copy cancel statement_timeout notices
    large_rows reconnect temporary_tables settings role listen advisory_locks
  ].freeze

  class Failure < StandardError; end

  module_function

  def same(expected, got)
    raise Failure, "#{expected.inspect} expected, not #{got.inspect}" unless expected == got
  end

  # Checks that the block raises this error of the server.
  def fails(kind)
    got = yield
  rescue kind => e
    e
  rescue PG::Error => e
    raise Failure, "#{kind} expected, not #{e.class}: #{e.message}"
  else
    raise Failure, "#{kind} expected, not #{got.inspect}"
  end

  # Runs the block for all connections, again and again, in transactions of their own.
  #
  # In each round another one holds a transaction open meanwhile. So behind a pooler in transaction mode all get other
  # servers than in the round before. The block gets the number of its connection and of the round.
  def alternate(connections, rounds)
    rounds.times do |round|
      holder = connections[round % connections.size]
      holder.transaction do
        ([holder] | connections).each { |one| yield one, connections.index(one), round }
      end
    end
  end

  # Runs the methods of `cells` that are named on the command line, or, with "-", on standard input line by line, or
  # all, and ends the program.
  def run(cells)
    $stdout.sync = true
    named = ARGV == ["-"] ? $stdin.each_line(chomp: true) : ARGV
    lines = (ARGV.empty? ? NAMES : named).map { |name| line(cells, name).tap { |text| puts text } }
    exit(lines.none?(/^fail/))
  end

  def line(cells, name)
    note = Timeout.timeout(LIMIT) { cells.public_send(name) }
    "#{"# #{name}: #{note}\n" if note.is_a?(String)}ok #{name}"
  rescue StandardError => e
    "fail #{name}: #{e.class}: #{e.message.split.join(" ")}"
  ensure
    cells.close
  end
end
